//! Whether a command that failed is sent again, where and when: a pure function.
//!
//! The rule behind it: what surely was not done may be done now. What may have been done is repeated only if doing it
//! twice gives what doing it once gives, and a change not before its first copy can no longer arrive late and undo
//! what was written after it.

use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::Operation;

/// A command's end on one route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) operation: Operation,
    pub(crate) status: Status,
    /// It may have reached the controller.
    pub(crate) sent: bool,
    /// Its connection was lost, and the controller may not know.
    pub(crate) silent: bool,
    /// How often it was repeated already because of a status.
    pub(crate) attempts: u32,
    /// How often it may be; none is without limit.
    pub(crate) limit: Option<u32>,
    /// How long a controller that lost touch may hold on to a command.
    pub(crate) quiesce: Duration,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The submitter is told.
    Answer(Status),
    /// The submitter is told after this time: until then it may still be done, and undo what is written next.
    AnswerLater(Status, Duration),
    /// It is sent again, over any route, after this time.
    Again {
        after: Duration,
        /// It counts as an attempt.
        counts: bool,
    },
}

/// Pause before the first repetition because of a status; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a controller that has let go of its connection may have a command at its disk still: one that is stopped or
/// killed closes its sockets before the disk has ended what it was told.
const SETTLE: Duration = Duration::from_secs(1);

const AT_ONCE: Verdict = Verdict::Again { after: Duration::ZERO, counts: false };

/// Decides.
pub(crate) fn judge(ended: Ended) -> Verdict {
    let status = ended.status;
    if status.is_success() {
        return Verdict::Answer(status);
    }
    let swap = ended.operation == Operation::CompareAndWrite;
    if status.is(Status::HOST_PATHING_ERROR) {
        return after_loss(ended);
    }
    if swap && status.is(Status::ABORTED_SQ_DELETION) {
        // A drive was reset with it, which may have done it.
        return Verdict::Answer(Status::TRANSIENT_TRANSPORT_ERROR);
    }
    let ana = [Status::ANA_INACCESSIBLE, Status::ANA_TRANSITION, Status::ANA_PERSISTENT_LOSS];
    if ana.iter().any(|refused| status.is(*refused)) {
        // The controller did nothing (Base 8.1.3); the route is not taken again before its state was asked for.
        return AT_ONCE;
    }
    let transient = [
        Status::COMMAND_INTERRUPTED,
        Status::NAMESPACE_NOT_READY,
        Status::TRANSIENT_TRANSPORT_ERROR,
        Status::ABORTED_SQ_DELETION,
        Status::INTERNAL_PATH_ERROR,
        Status::CONTROLLER_PATHING_ERROR,
    ];
    let repeatable = !swap
        && !status.is_do_not_retry()
        && transient.iter().any(|transient| status.is(*transient))
        && ended.limit.is_none_or(|limit| ended.attempts < limit);
    if repeatable {
        let pause = FIRST_PAUSE * (1 << ended.attempts.min(10));
        return Verdict::Again { after: pause.min(LONGEST_PAUSE), counts: true };
    }
    Verdict::Answer(status)
}

/// The connection was lost, and with it the answer.
fn after_loss(ended: Ended) -> Verdict {
    if !ended.sent {
        return AT_ONCE;
    }
    let linger = if ended.silent { ended.quiesce } else { SETTLE.min(ended.quiesce) };
    match ended.operation {
        // If it was done, its own new content would make it fail now. Only the submitter knows what that means.
        Operation::CompareAndWrite => Verdict::AnswerLater(Status::TRANSIENT_TRANSPORT_ERROR, linger),
        operation if operation.modifies() => Verdict::Again { after: linger, counts: false },
        _ => AT_ONCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Ended = Ended {
        operation: Operation::Write,
        status: Status::HOST_PATHING_ERROR,
        sent: true,
        silent: true,
        attempts: 0,
        limit: Some(3),
        quiesce: Duration::from_secs(5),
    };

    // Deleting this lets a write that was delayed on a dead path overwrite a newer one, or a compare-and-write that was
    // done be answered as if it had failed.
    #[test]
    fn what_may_have_been_done_is_repeated_with_care() {
        let later = Verdict::Again { after: LOST.quiesce, counts: false };
        for operation in
            [Operation::Write, Operation::WriteZeroes { deallocate: false }, Operation::Deallocate]
        {
            assert_eq!(judge(Ended { operation, ..LOST }), later);
            let soon = Verdict::Again { after: SETTLE, counts: false };
            assert_eq!(judge(Ended { operation, silent: false, ..LOST }), soon);
            assert_eq!(judge(Ended { operation, sent: false, ..LOST }), AT_ONCE);
        }
        for operation in [Operation::Read, Operation::Compare, Operation::Verify, Operation::Flush] {
            assert_eq!(judge(Ended { operation, ..LOST }), AT_ONCE);
        }
        let swap = Ended { operation: Operation::CompareAndWrite, ..LOST };
        let unknown = Status::TRANSIENT_TRANSPORT_ERROR;
        assert_eq!(judge(swap), Verdict::AnswerLater(unknown, LOST.quiesce));
        assert_eq!(judge(Ended { silent: false, ..swap }), Verdict::AnswerLater(unknown, SETTLE));
        let deleted = Ended { status: Status::ABORTED_SQ_DELETION, ..swap };
        assert_eq!(judge(deleted), Verdict::Answer(unknown));
        assert_eq!(judge(Ended { sent: false, ..swap }), AT_ONCE);
        assert_eq!(judge(Ended { status: Status::ANA_TRANSITION, ..swap }), AT_ONCE);
    }

    // Deleting this lets a command be repeated for ever, or a final failure be repeated at all.
    #[test]
    fn repetitions_are_bounded() {
        let busy = Ended { status: Status::COMMAND_INTERRUPTED, ..LOST };
        let pause = |attempts| match judge(Ended { attempts, ..busy }) {
            Verdict::Again { after, counts: true } => Some(after),
            _ => None,
        };
        assert!(pause(0) < pause(1) && pause(2).is_some());
        assert_eq!(judge(Ended { attempts: 3, ..busy }), Verdict::Answer(busy.status));
        assert!(matches!(
            judge(Ended { attempts: 1 << 20, limit: None, ..busy }),
            Verdict::Again { after: LONGEST_PAUSE, .. }
        ));
        let last = Ended { status: busy.status.do_not_retry(), ..busy };
        assert_eq!(judge(last), Verdict::Answer(last.status));
        for status in [Status::WRITE_FAULT, Status::COMPARE_FAILURE, Status::SUCCESS] {
            assert_eq!(judge(Ended { status, ..LOST }), Verdict::Answer(status));
        }
        let swap = Ended { operation: Operation::CompareAndWrite, ..busy };
        assert_eq!(judge(swap), Verdict::Answer(busy.status));
    }
}
