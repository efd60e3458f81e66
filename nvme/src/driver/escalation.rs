//! What to do about I/O commands that have no answer, as a state machine without any input or output.
//!
//! Owns [`Escalation`], one for each I/O queue pair: Abort, then deleting the queue, then resetting the controller, then
//! failing it. Invariant: every pair of step and event is decided here; a step is taken only after the one before it
//! did not help, and resets in a row without one command completed between them are bounded. The watch of a queue feeds
//! the events and carries the actions out.

/// How far escalation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is overdue, as far as is known.
    Calm,
    /// Abort was sent for this command.
    Aborting(u16),
    /// Abort was answered; this command is to complete any moment.
    Aborted(u16),
    /// The queue is being deleted and made again.
    Deleting,
    /// The controller is being reset.
    Resetting,
    /// The controller was given up.
    Failed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// No command is overdue.
    InTime {
        /// Commands have completed since the last look.
        progress: bool,
    },
    /// This command is overdue; there is no older one.
    Overdue(u16),
    /// Abort was answered, whatever the answer.
    AbortAnswered,
    /// Abort was not answered in time.
    AbortTimedOut,
    /// The queue was deleted and made again.
    Deleted,
    /// It could not be, or not in time.
    DeleteFailed,
    /// The controller is live again, after a reset for any reason.
    Live,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Look again later.
    Nothing,
    /// Send Abort for this command. Ends with `AbortAnswered` or `AbortTimedOut`.
    Abort(u16),
    /// Delete the queue, take its commands back and make it again. Ends with `Deleted` or `DeleteFailed`.
    DeleteQueue,
    /// Ends with `Live`, or not at all.
    ResetController,
    /// Give the controller up.
    FailController,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escalation {
    step: Step,
    /// Resets that this queue asked for since a command of it completed last.
    resets: u32,
    max_resets: u32,
}

impl Escalation {
    pub(super) const fn new(max_resets: u32) -> Self {
        Self { step: Step::Calm, resets: 0, max_resets }
    }

    #[cfg(test)]
    pub(super) const fn step(&self) -> Step {
        self.step
    }

    /// Takes an event, and says what to do now.
    pub(super) fn on(&mut self, event: Event) -> Action {
        if let Event::InTime { progress: true } = event {
            self.resets = 0;
        }
        match (self.step, event) {
            // A reset for any reason answers or takes back every command.
            (_, Event::Live) => self.go(Step::Calm, Action::Nothing),
            (Step::Calm | Step::Aborted(_), Event::InTime { .. }) => self.go(Step::Calm, Action::Nothing),
            (Step::Calm, Event::Overdue(cid)) => self.go(Step::Aborting(cid), Action::Abort(cid)),
            (Step::Aborting(cid), Event::AbortAnswered) => self.go(Step::Aborted(cid), Action::Nothing),
            (Step::Aborting(_), Event::AbortTimedOut) => self.go(Step::Deleting, Action::DeleteQueue),
            (Step::Aborted(aborted), Event::Overdue(cid)) if cid == aborted => {
                self.go(Step::Deleting, Action::DeleteQueue)
            }
            (Step::Aborted(_), Event::Overdue(cid)) => self.go(Step::Aborting(cid), Action::Abort(cid)),
            (Step::Deleting, Event::Deleted) => self.go(Step::Calm, Action::Nothing),
            (Step::Deleting, Event::DeleteFailed) if self.resets >= self.max_resets => {
                self.go(Step::Failed, Action::FailController)
            }
            (Step::Deleting, Event::DeleteFailed) => {
                self.resets += 1;
                self.go(Step::Resetting, Action::ResetController)
            }
            // Answers to what is over, and looks while something is being done.
            (Step::Calm | Step::Aborted(_), Event::AbortAnswered | Event::AbortTimedOut)
            | (Step::Calm | Step::Aborted(_) | Step::Aborting(_), Event::Deleted | Event::DeleteFailed)
            | (Step::Aborting(_) | Step::Deleting, Event::InTime { .. } | Event::Overdue(_))
            | (Step::Deleting, Event::AbortAnswered | Event::AbortTimedOut)
            | (Step::Resetting | Step::Failed, _) => Action::Nothing,
        }
    }

    fn go(&mut self, step: Step, action: Action) -> Action {
        self.step = step;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 6] =
        [Step::Calm, Step::Aborting(7), Step::Aborted(7), Step::Deleting, Step::Resetting, Step::Failed];
    const EVENTS: [Event; 9] = [
        Event::InTime { progress: false },
        Event::InTime { progress: true },
        Event::Overdue(7),
        Event::Overdue(8),
        Event::AbortAnswered,
        Event::AbortTimedOut,
        Event::Deleted,
        Event::DeleteFailed,
        Event::Live,
    ];

    // Deleting this lets a pair of step and event do something else than the table in docs/nvme-driver.md: a step left
    // out, an action begun twice, or one that never ends. Every pair that is not named here does nothing.
    #[test]
    fn every_pair_is_as_the_table_says() {
        let named = [
            (Step::Calm, Event::Overdue(7), Step::Aborting(7), Action::Abort(7)),
            (Step::Calm, Event::Overdue(8), Step::Aborting(8), Action::Abort(8)),
            (Step::Aborting(7), Event::AbortAnswered, Step::Aborted(7), Action::Nothing),
            (Step::Aborting(7), Event::AbortTimedOut, Step::Deleting, Action::DeleteQueue),
            (Step::Aborted(7), Event::InTime { progress: false }, Step::Calm, Action::Nothing),
            (Step::Aborted(7), Event::InTime { progress: true }, Step::Calm, Action::Nothing),
            (Step::Aborted(7), Event::Overdue(7), Step::Deleting, Action::DeleteQueue),
            (Step::Aborted(7), Event::Overdue(8), Step::Aborting(8), Action::Abort(8)),
            (Step::Deleting, Event::Deleted, Step::Calm, Action::Nothing),
            (Step::Deleting, Event::DeleteFailed, Step::Resetting, Action::ResetController),
        ];
        for step in STEPS {
            for event in EVENTS {
                let mut machine = Escalation { step, resets: 0, max_resets: 3 };
                let action = machine.on(event);
                let expected = if event == Event::Live {
                    (Step::Calm, Action::Nothing)
                } else {
                    named
                        .iter()
                        .find(|(from, on, ..)| (*from, *on) == (step, event))
                        .map_or((step, Action::Nothing), |(_, _, to, action)| (*to, *action))
                };
                assert_eq!((machine.step(), action), expected, "{step:?} on {event:?}");
            }
        }
    }

    // Deleting this lets a device that answers nothing be reset for ever, or a healthy one be failed for the sum of
    // what happened over the years.
    #[test]
    fn resets_in_a_row_are_bounded_and_progress_forgives() {
        let stuck = [Event::Overdue(1), Event::AbortTimedOut, Event::DeleteFailed];
        let mut machine = Escalation::new(2);
        for round in 0..6 {
            let last = stuck.map(|event| machine.on(event))[2];
            assert_eq!(last, Action::ResetController, "round {round}");
            assert_eq!(machine.on(Event::Live), Action::Nothing);
            if round % 2 == 1 {
                machine.on(Event::InTime { progress: true });
            } else {
                machine.on(Event::InTime { progress: false });
            }
        }
        for expected in [Action::ResetController, Action::ResetController, Action::FailController] {
            assert_eq!(stuck.map(|event| machine.on(event))[2], expected);
            machine.on(Event::Live);
        }
    }
}
