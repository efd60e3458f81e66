//! The life of a controller as a state machine, without any input or output.
//!
//! Owns [`State`], and which [`Action`] follows which [`Event`] in which state: every pair is decided here. Invariant:
//! an action that gives memory back ([`Action::Enable`], [`Action::Fail`], [`Action::AwaitReturn`],
//! [`Action::StopWaiting`], [`Action::Retire`]) is only ever taken after an event that says that the controller does no
//! DMA any more; the actions named `Leak` are for when nothing could say so. The keeper of a controller feeds the events
//! and carries the actions out.

use std::fmt;

/// How a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// CC.EN is cleared; CSTS.RDY is waited for to be 0.
    Disabling,
    /// It did not become that: bus mastering is being turned off, and the function reset.
    Isolating,
    /// Disabled, and waiting a while before the next attempt to bring it up.
    Disabled,
    /// CC.EN is set; CSTS.RDY is waited for to be 1.
    Enabling,
    /// The admin queue works: it is asked what it is.
    Identifying,
    /// I/O queues are being created.
    CreatingQueues,
    /// It takes I/O.
    Live,
    /// Reactors are being told to stop submitting, before a reset.
    Resetting,
    /// An orderly shutdown goes on: I/O ends, queues are deleted, CC.SHN is set.
    ShuttingDown,
    /// Given up. A reset that is asked for tries again.
    Failed,
    /// The device was taken out; another function may come in its place.
    Removed,
    /// The end.
    Detached,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Disabling,
        Self::Isolating,
        Self::Disabled,
        Self::Enabling,
        Self::Identifying,
        Self::CreatingQueues,
        Self::Live,
        Self::Resetting,
        Self::ShuttingDown,
        Self::Failed,
        Self::Removed,
        Self::Detached,
    ];

    /// In one or two words, for people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabling => "disabling",
            Self::Isolating => "isolating",
            Self::Disabled => "disabled",
            Self::Enabling => "enabling",
            Self::Identifying => "identifying",
            Self::CreatingQueues => "creating queues",
            Self::Live => "live",
            Self::Resetting => "resetting",
            Self::ShuttingDown => "shutting down",
            Self::Failed => "failed",
            Self::Removed => "removed",
            Self::Detached => "detached",
        }
    }

    /// Whether it stays so until something is asked or happens from outside.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Live | Self::Failed | Self::Removed | Self::Detached)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The wait before the next attempt is over.
    Again,
    /// No reactor submits any more.
    QueuesStopped,
    /// CSTS.RDY is 0: no more DMA.
    NotReady,
    /// CSTS.RDY is 1.
    Ready,
    /// The controller and its namespaces are known.
    Identified,
    /// There are I/O queues.
    QueuesCreated,
    /// The shutdown is complete.
    ShutDown,
    /// What was being done failed, or took too long.
    StepFailed,
    /// The function was reset: no more DMA, and it can be brought up again.
    WasReset,
    /// Only bus mastering could be turned off: no more DMA, but it can't be brought up again.
    Confined,
    /// Neither could be done.
    NotIsolated,
    /// CSTS.CFS is set.
    Fatal,
    /// A reset is asked for, by escalation or by a user.
    ResetAsked,
    /// Escalation has come to its end.
    FailAsked,
    /// A user wants to be rid of it.
    DetachAsked,
    /// The registers read as all ones, or the bus says that the device is gone.
    Gone,
    /// The system asks for the device.
    Leaving,
    /// A function is there in place of the one that went.
    Returned,
    /// Commands have waited long enough for its return.
    WaitedEnough,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Go on with what is being done.
    Continue,
    /// Make all reactors stop submitting. Ends with `QueuesStopped`.
    StopQueues,
    /// Clear CC.EN. Ends with `NotReady` or `StepFailed`.
    Disable,
    /// Turn bus mastering off, reset the function. Ends with `WasReset`, `Confined` or `NotIsolated`.
    Isolate,
    /// Wait a while. Ends with `Again`.
    Delay,
    /// Take back what the controller had; set it up and enable it. Ends with `Ready` or `StepFailed`.
    Enable,
    /// Ends with `Identified` or `StepFailed`.
    Identify,
    /// Ends with `QueuesCreated` or `StepFailed`.
    CreateQueues,
    /// Let the reactors submit.
    Serve,
    /// Stop I/O, delete queues, set CC.SHN. Ends with `ShutDown` or `StepFailed`.
    ShutDown,
    /// Fail what is outstanding and what comes.
    Fail,
    /// The same, but memory that the controller may still reach is never given back.
    LeakAndFail,
    /// Keep what is outstanding and what comes, let go of the function. Ends with `WaitedEnough`.
    AwaitReturn,
    /// Fail what waits and what comes; let go of the function.
    StopWaiting,
    /// Give everything back.
    Retire,
    /// The same, but memory that the controller may still reach is never given back.
    LeakAndRetire,
}

/// Where it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Live,
    Failed,
    Removed,
    Detached,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifecycle {
    state: State,
    goal: Goal,
    /// It was live once: from then on it is brought back rather than given up at the first failure.
    attached: bool,
    /// Attempts in a row that did not end live.
    attempts: u32,
    max_attempts: u32,
}

impl Lifecycle {
    /// The beginning, and the first action.
    pub(super) const fn new(max_attempts: u32) -> (Self, Action) {
        let new =
            Self { state: State::Disabling, goal: Goal::Live, attached: false, attempts: 0, max_attempts };
        (new, Action::Disable)
    }

    /// How the controller is.
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Takes an event, and says what to do now.
    pub(super) fn on(&mut self, event: Event) -> Action {
        self.note(event);
        match self.state {
            State::Disabling => match event {
                Event::NotReady => self.disabled(),
                Event::StepFailed => self.go(State::Isolating, Action::Isolate),
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::Isolating => match event {
                Event::WasReset => self.isolated(),
                Event::Confined => match self.goal {
                    Goal::Detached => self.go(State::Detached, Action::Retire),
                    _ => self.go(State::Failed, Action::Fail),
                },
                Event::NotIsolated => match self.goal {
                    Goal::Detached => self.go(State::Detached, Action::LeakAndRetire),
                    _ => self.go(State::Failed, Action::LeakAndFail),
                },
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::Disabled => match event {
                Event::Again => self.go(State::Enabling, Action::Enable),
                Event::DetachAsked => self.go(State::Detached, Action::Retire),
                Event::FailAsked => self.go(State::Failed, Action::Fail),
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::Enabling => match event {
                Event::Ready => self.go(State::Identifying, Action::Identify),
                _ => self.bringing_up(event),
            },
            State::Identifying => match event {
                Event::Identified => self.go(State::CreatingQueues, Action::CreateQueues),
                _ => self.bringing_up(event),
            },
            State::CreatingQueues => match event {
                Event::QueuesCreated => {
                    (self.attached, self.attempts) = (true, 0);
                    self.go(State::Live, Action::Serve)
                }
                _ => self.bringing_up(event),
            },
            State::Live => match event {
                Event::ResetAsked | Event::Fatal | Event::FailAsked => {
                    self.go(State::Resetting, Action::StopQueues)
                }
                Event::DetachAsked | Event::Leaving => self.go(State::ShuttingDown, Action::ShutDown),
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::Resetting => match event {
                Event::QueuesStopped => self.go(State::Disabling, Action::Disable),
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::ShuttingDown => match event {
                Event::ShutDown | Event::StepFailed | Event::Fatal => {
                    self.go(State::Disabling, Action::Disable)
                }
                Event::Gone => self.gone(),
                _ => Action::Continue,
            },
            State::Failed => match event {
                Event::ResetAsked | Event::Returned => self.begin(),
                Event::DetachAsked => self.go(State::Detached, Action::Retire),
                // It does no DMA any more: there is nothing to shut down.
                Event::Gone | Event::Leaving => self.go(State::Removed, Action::StopWaiting),
                _ => Action::Continue,
            },
            State::Removed => match event {
                Event::Returned => self.begin(),
                Event::WaitedEnough => self.go(State::Removed, Action::StopWaiting),
                Event::DetachAsked => self.go(State::Detached, Action::Retire),
                _ => Action::Continue,
            },
            State::Detached => Action::Continue,
        }
    }

    /// Remembers where it is to end; the last wish counts, but nothing undoes a detach.
    fn note(&mut self, event: Event) {
        let goal = match event {
            Event::DetachAsked => Goal::Detached,
            Event::FailAsked if self.goal == Goal::Live => Goal::Failed,
            Event::Leaving if self.goal == Goal::Live && self.state == State::Live => Goal::Removed,
            _ => return,
        };
        self.goal = goal;
    }

    fn go(&mut self, state: State, action: Action) -> Action {
        self.state = state;
        action
    }

    /// Starts over, with all attempts.
    fn begin(&mut self) -> Action {
        (self.goal, self.attempts) = (Goal::Live, 0);
        self.go(State::Disabling, Action::Disable)
    }

    /// What any step of bringing up makes of an event that is not its success.
    fn bringing_up(&mut self, event: Event) -> Action {
        match event {
            Event::StepFailed | Event::Fatal => {
                self.attempts += 1;
                if self.goal == Goal::Live && (!self.attached || self.attempts >= self.max_attempts) {
                    self.goal = Goal::Failed;
                }
                self.go(State::Disabling, Action::Disable)
            }
            Event::DetachAsked | Event::FailAsked => self.go(State::Disabling, Action::Disable),
            Event::Gone => self.gone(),
            _ => Action::Continue,
        }
    }

    /// The controller does no more DMA, and can be enabled.
    fn disabled(&mut self) -> Action {
        match self.goal {
            Goal::Live if self.attempts == 0 => self.go(State::Enabling, Action::Enable),
            Goal::Live => self.go(State::Disabled, Action::Delay),
            Goal::Failed => self.go(State::Failed, Action::Fail),
            Goal::Removed => self.go(State::Removed, Action::AwaitReturn),
            Goal::Detached => self.go(State::Detached, Action::Retire),
        }
    }

    /// It had to be reset by force, which counts as an attempt that failed.
    fn isolated(&mut self) -> Action {
        self.attempts += 1;
        if self.goal == Goal::Live && (self.attempts >= self.max_attempts) {
            self.goal = Goal::Failed;
        }
        self.disabled()
    }

    fn gone(&mut self) -> Action {
        match self.goal {
            Goal::Live | Goal::Removed => self.go(State::Removed, Action::AwaitReturn),
            Goal::Failed => self.go(State::Removed, Action::StopWaiting),
            Goal::Detached => self.go(State::Detached, Action::Retire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: [Goal; 4] = [Goal::Live, Goal::Failed, Goal::Removed, Goal::Detached];
    const EVENTS: [Event; 19] = [
        Event::Again,
        Event::QueuesStopped,
        Event::NotReady,
        Event::Ready,
        Event::Identified,
        Event::QueuesCreated,
        Event::ShutDown,
        Event::StepFailed,
        Event::WasReset,
        Event::Confined,
        Event::NotIsolated,
        Event::Fatal,
        Event::ResetAsked,
        Event::FailAsked,
        Event::DetachAsked,
        Event::Gone,
        Event::Leaving,
        Event::Returned,
        Event::WaitedEnough,
    ];

    /// Every combination that the machine can be in.
    fn everything() -> impl Iterator<Item = Lifecycle> {
        let states = State::ALL.into_iter().flat_map(|state| GOALS.map(|goal| (state, goal)));
        states.flat_map(|(state, goal)| {
            [(false, 0), (true, 0), (true, 1), (true, 2)].map(|(attached, attempts)| Lifecycle {
                state,
                goal,
                attached,
                attempts,
                max_attempts: 3,
            })
        })
    }

    /// The action that is being carried out in a state, and what ends it.
    fn ends(state: State) -> &'static [Event] {
        match state {
            State::Disabling => &[Event::NotReady, Event::StepFailed],
            State::Isolating => &[Event::WasReset, Event::Confined, Event::NotIsolated],
            State::Disabled => &[Event::Again],
            State::Enabling => &[Event::Ready, Event::StepFailed],
            State::Identifying => &[Event::Identified, Event::StepFailed],
            State::CreatingQueues => &[Event::QueuesCreated, Event::StepFailed],
            State::Resetting => &[Event::QueuesStopped],
            State::ShuttingDown => &[Event::ShutDown, Event::StepFailed],
            State::Removed => &[Event::WaitedEnough],
            State::Live | State::Failed | State::Detached => &[],
        }
    }

    // Deleting this lets the keeper wait for ever: an action ended, and nothing follows.
    #[test]
    fn whatever_ends_an_action_leads_to_the_next() {
        for before in everything() {
            for event in ends(before.state) {
                let mut after = before;
                assert_ne!(after.on(*event), Action::Continue, "{before:?} on {event:?}");
            }
        }
    }

    // Deleting this lets memory be given back while the controller may still write to it: the one thing that must
    // never happen.
    #[test]
    fn memory_is_given_back_only_when_the_controller_does_no_dma() {
        let releases =
            [Action::Enable, Action::Fail, Action::AwaitReturn, Action::StopWaiting, Action::Retire];
        for before in everything() {
            // In these states the controller does none already.
            let quiet = matches!(before.state, State::Disabled | State::Removed | State::Failed);
            for event in EVENTS {
                let mut after = before;
                let action = after.on(event);
                if releases.contains(&action) && !quiet {
                    let safe = [Event::NotReady, Event::WasReset, Event::Confined, Event::Gone];
                    assert!(safe.contains(&event), "{before:?} on {event:?}: {action:?}");
                }
                let leaks = matches!(action, Action::LeakAndFail | Action::LeakAndRetire);
                assert_eq!(leaks, before.state == State::Isolating && event == Event::NotIsolated);
            }
        }
    }

    // Deleting this lets a stale answer, or an event that some state has no use for, change the state.
    #[test]
    fn what_a_state_has_no_use_for_changes_nothing() {
        let asked = [Event::FailAsked, Event::DetachAsked, Event::ResetAsked];
        let happen = [Event::Fatal, Event::Gone, Event::Leaving, Event::Returned];
        for before in everything() {
            for event in EVENTS {
                if ends(before.state).contains(&event) || asked.contains(&event) || happen.contains(&event) {
                    continue;
                }
                let mut after = before;
                assert_eq!(after.on(event), Action::Continue, "{before:?} on {event:?}");
                assert_eq!(after, before, "{before:?} on {event:?}");
            }
        }
    }

    // Deleting this lets the machine take another way than docs/nvme-driver.md draws. Each pair of state and event from
    // outside, for a controller that was live and shall be again.
    #[test]
    fn events_from_outside_are_as_the_table_says() {
        use Action as A;
        use Event as E;
        use State as S;
        let expected = |state: State, event: Event| match (state, event) {
            (S::Detached, _) => None,
            (S::Failed, E::Gone | E::Leaving) => Some((S::Removed, A::StopWaiting)),
            (S::Removed, E::Gone) => None,
            (_, E::Gone) => Some((S::Removed, A::AwaitReturn)),
            (S::Disabled | S::Failed | S::Removed, E::DetachAsked) => Some((S::Detached, A::Retire)),
            (S::Live, E::DetachAsked | E::Leaving) => Some((S::ShuttingDown, A::ShutDown)),
            (S::Enabling | S::Identifying | S::CreatingQueues, E::DetachAsked | E::FailAsked | E::Fatal) => {
                Some((S::Disabling, A::Disable))
            }
            (S::Live, E::ResetAsked | E::FailAsked | E::Fatal) => Some((S::Resetting, A::StopQueues)),
            (S::ShuttingDown, E::Fatal) => Some((S::Disabling, A::Disable)),
            (S::Failed, E::ResetAsked | E::Returned) => Some((S::Disabling, A::Disable)),
            (S::Removed, E::Returned) => Some((S::Disabling, A::Disable)),
            (S::Disabled, E::FailAsked) => Some((S::Failed, A::Fail)),
            _ => None,
        };
        let outside =
            [E::Fatal, E::ResetAsked, E::FailAsked, E::DetachAsked, E::Gone, E::Leaving, E::Returned];
        for state in State::ALL {
            for event in outside {
                let mut machine =
                    Lifecycle { state, goal: Goal::Live, attached: true, attempts: 0, max_attempts: 3 };
                let action = machine.on(event);
                let (to, then) = expected(state, event).unwrap_or((state, Action::Continue));
                assert_eq!((machine.state(), action), (to, then), "{state:?} on {event:?}");
            }
        }
    }

    /// Follows a controller through events, and says where it ends.
    fn follow(machine: &mut Lifecycle, events: &[Event]) -> (State, Action) {
        let mut action = Action::Continue;
        for event in events {
            action = machine.on(*event);
        }
        (machine.state(), action)
    }

    const UP: [Event; 4] = [Event::NotReady, Event::Ready, Event::Identified, Event::QueuesCreated];

    // Deleting this lets a first attempt that fails be repeated while the caller waits, a later one be given up at once,
    // or attempts go on for ever.
    #[test]
    fn attempts_are_bounded() {
        let (mut machine, first) = Lifecycle::new(3);
        assert_eq!(first, Action::Disable);
        let failed = [Event::NotReady, Event::StepFailed, Event::NotReady];
        assert_eq!(follow(&mut machine, &failed), (State::Failed, Action::Fail));

        let (mut machine, _) = Lifecycle::new(3);
        assert_eq!(follow(&mut machine, &UP), (State::Live, Action::Serve));
        follow(&mut machine, &[Event::ResetAsked, Event::QueuesStopped]);
        for _ in 0..2 {
            let again = [Event::NotReady, Event::Again, Event::StepFailed];
            let first = [Event::NotReady, Event::StepFailed];
            let events = if machine.attempts == 0 { &first[..] } else { &again[..] };
            assert_eq!(follow(&mut machine, events), (State::Disabling, Action::Disable));
        }
        assert_eq!(follow(&mut machine, &[Event::NotReady]), (State::Disabled, Action::Delay));
        follow(&mut machine, &[Event::Again, Event::StepFailed]);
        assert_eq!(follow(&mut machine, &[Event::NotReady]), (State::Failed, Action::Fail));
        assert_eq!(follow(&mut machine, &[Event::ResetAsked]), (State::Disabling, Action::Disable));
        assert_eq!(follow(&mut machine, &UP), (State::Live, Action::Serve));
    }

    // Deleting this lets a detach be forgotten because something else happens meanwhile, whatever that is.
    #[test]
    fn a_detach_is_never_undone() {
        for before in everything() {
            let mut machine = before;
            machine.on(Event::DetachAsked);
            for first in EVENTS {
                let mut after = machine;
                after.on(first);
                // Carry on what is being done; each state's first end is its good one.
                for _ in 0..8 {
                    if let Some(end) = ends(after.state).first() {
                        after.on(*end);
                    }
                }
                assert_eq!(after.state(), State::Detached, "{before:?}, {first:?} after a detach");
            }
        }
    }

    // Deleting this lets an orderly removal end as a failure, or the device be held although the system wants it.
    #[test]
    fn a_device_that_leaves_is_shut_down_and_awaited() {
        let (mut machine, _) = Lifecycle::new(3);
        follow(&mut machine, &UP);
        assert_eq!(follow(&mut machine, &[Event::Leaving]), (State::ShuttingDown, Action::ShutDown));
        assert_eq!(follow(&mut machine, &[Event::ShutDown]), (State::Disabling, Action::Disable));
        assert_eq!(follow(&mut machine, &[Event::NotReady]), (State::Removed, Action::AwaitReturn));
        assert_eq!(follow(&mut machine, &[Event::WaitedEnough]), (State::Removed, Action::StopWaiting));
        assert_eq!(follow(&mut machine, &[Event::Returned]), (State::Disabling, Action::Disable));
        assert_eq!(follow(&mut machine, &UP), (State::Live, Action::Serve));
    }

    // Deleting this lets a controller that can't be stopped keep its memory mapped for nothing, or worse: be given up as
    // if it had been stopped.
    #[test]
    fn a_controller_that_stays_ready_is_isolated() {
        for (end, state, action) in [
            (Event::WasReset, State::Disabled, Action::Delay),
            (Event::Confined, State::Failed, Action::Fail),
            (Event::NotIsolated, State::Failed, Action::LeakAndFail),
        ] {
            let (mut machine, _) = Lifecycle::new(3);
            follow(&mut machine, &UP);
            follow(&mut machine, &[Event::ResetAsked, Event::QueuesStopped]);
            assert_eq!(follow(&mut machine, &[Event::StepFailed]), (State::Isolating, Action::Isolate));
            assert_eq!(follow(&mut machine, &[end]), (state, action));
        }
    }
}
