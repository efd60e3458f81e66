//! Commands that get no answer: what is tried, in which order, and what becomes of the commands.

use sledge_nvme::Command;
use std::time::Duration;

use sledge_nvme::driver::{AdminBuffer, ControllerEvent, ControllerOptions, DriverError, State};
use sledge_nvme::model::ModelOptions;
use sledge_nvme::opcode::{Admin, Nvm};
use sledge_reactor::time::sleep;

use crate::load::Tally;
use crate::rig::{Rig, listen, options, read, write};

fn is_write(queue: u16, command: &Command) -> bool {
    queue != 0 && command.opcode == Nvm::Write.value()
}

// Deleting this lets a command without an answer wait for ever although the controller would abort it.
#[test]
fn an_overdue_command_is_aborted_and_tried_again() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let mut first = true;
    rig.model.hold(move |queue, command| is_write(queue, command) && std::mem::take(&mut first));
    let user = controller.clone();
    rig.run(move || async move {
        assert!(write(&user, 1, 7).await.is_success());
        assert_eq!(read(&user, 1).await, Ok(7));
    });
    let counts = controller.statistics();
    assert_eq!((counts.overdue, counts.aborts, counts.aborted), (1, 1, 1));
    assert_eq!((counts.queue_deletions, counts.resets), (0, 0));
    rig.assert_clean();
}

// Deleting this lets a command that can't be aborted wait for ever, or hold up the commands of its queue; or the commands
// of other queues suffer.
#[test]
fn a_queue_whose_command_can_not_be_aborted_is_made_again() {
    for seed in 0..10 {
        let (shadow_doorbells, max_io_queues) = (seed % 2 == 0, [64, 2][seed as usize % 3 / 2]);
        let kind = ModelOptions { shadow_doorbells, max_io_queues, ..ModelOptions::default() };
        let mut rig = Rig::new(seed, 3, kind);
        let short = ControllerOptions { io_timeout: Duration::from_millis(80), ..options() };
        let controller = rig.attach(short).unwrap();
        if seed % 2 == 1 {
            rig.slow_model();
        }
        rig.model.ignore_aborts(true);
        let mut left = 1 + seed % 5;
        rig.model.hold(move |queue, _| {
            let hold = queue == 2 && left > 0;
            left -= u64::from(hold);
            hold
        });
        let tally = Tally::start(&mut rig, &controller);
        rig.run_for(150);
        tally.finish(&mut rig);
        let counts = controller.statistics();
        assert_eq!((counts.queue_deletions, counts.resets, counts.aborted), (1, 0, 0), "seed {seed}");
        assert_eq!(tally.failed(), 0, "seed {seed}");
        assert_eq!(controller.state(), State::Live);
        let user = controller.clone();
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets a reset that comes while a queue is being deleted and made again meet with that: a queue started that
// the controller does not have, or its commands taken back twice.
#[test]
fn a_reset_may_come_in_the_middle_of_a_deletion() {
    for seed in 0..8 {
        let kind = ModelOptions { max_io_queues: 2 + seed as u16 % 2, ..ModelOptions::default() };
        let mut rig = Rig::new(seed, 3, kind);
        let short = ControllerOptions { io_timeout: Duration::from_millis(80), ..options() };
        let controller = rig.attach(short).unwrap();
        rig.slow_model();
        rig.model.ignore_aborts(true);
        let watched = controller.clone();
        rig.model.hold(move |queue, _| queue == 2 && watched.statistics().resets == 0);
        let tally = Tally::start(&mut rig, &controller);
        let user = controller.clone();
        rig.run(move || async move {
            while user.statistics().queue_deletions == 0 {
                sleep(Duration::from_micros(20)).await;
            }
            sleep(Duration::from_micros(sledge_reactor::random_u64() % 1200)).await;
            user.reset().await.unwrap();
        });
        rig.run_for(100);
        tally.finish(&mut rig);
        assert_eq!((tally.failed(), controller.state()), (0, State::Live), "seed {seed}");
        let user = controller.clone();
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets a controller whose admin queue hangs, too, take all commands with it, though a reset helps.
#[test]
fn a_controller_that_does_not_answer_at_all_is_reset() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let watched = controller.clone();
    // It hangs until it is reset for the first time.
    rig.model.hold(move |_, _| watched.statistics().resets == 0);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(2000);
    tally.finish(&mut rig);
    let counts = controller.statistics();
    assert_eq!((counts.timeout_resets, counts.resets, counts.failures), (1, 1, 0));
    assert!(counts.aborts >= 1 && counts.queue_deletions >= 1, "{counts:?}");
    assert_eq!((tally.failed(), controller.state()), (0, State::Live));
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Reset]);
    rig.assert_clean();
}

// Deleting this lets a controller that never does I/O be reset for ever, and its users never get an answer.
#[test]
fn a_controller_that_resets_do_not_help_is_failed() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    rig.model.hold(|queue, command| {
        let delete = command.opcode == Admin::DeleteIoSubmissionQueue.value();
        queue != 0 || command.opcode == Admin::Abort.value() || delete
    });
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(8000);
    assert_eq!(controller.state(), State::Failed);
    assert_eq!(heard.lock().unwrap().last(), Some(&ControllerEvent::Failed));
    let counts = controller.statistics();
    assert_eq!((counts.failures, counts.leaks), (1, 0));
    assert!((3..=6).contains(&counts.timeout_resets), "{counts:?}");
    tally.finish(&mut rig);
    assert!(tally.failed() > 0);
    assert_eq!(tally.done(), 0);
    let user = controller.clone();
    rig.run(move || async move {
        assert!(!write(&user, 1, 1).await.is_success(), "answered at once");
        assert!(matches!(
            user.admin(Command::identify(1, 0), AdminBuffer::In(4096)).await,
            Err(DriverError::Failed(_))
        ));
        user.detach().await.unwrap();
    });
    rig.assert_clean();
    rig.assert_nothing_mapped();
}

// Deleting this lets an admin command of a user's that the controller does not answer hang its caller, or the memory that
// it names be used for something else while the controller may still write to it.
#[test]
fn an_admin_command_without_an_answer_ends_in_a_reset() {
    let mut rig = Rig::new(1, 1, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    rig.model.hold(|queue, command| queue == 0 && command.opcode == Admin::GetLogPage.value());
    let user = controller.clone();
    rig.run(move || async move {
        let log = Command::get_log_page(2, u32::MAX, 0, 512);
        assert!(matches!(user.admin(log, AdminBuffer::In(512)).await, Err(DriverError::Timeout { .. })));
    });
    rig.model.hold_none();
    rig.run_for(500);
    assert_eq!((controller.state(), controller.statistics().resets), (State::Live, 1));
    rig.assert_clean();
}
