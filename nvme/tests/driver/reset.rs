//! Resets while several reactors submit.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sledge_nvme::driver::{Controller, ControllerEvent, DriverError, State};
use sledge_nvme::function::{DmaError, DmaMemory, Function, Presence, Registration};
use sledge_nvme::model::{Model, ModelOptions, Readiness};
use sledge_reactor::random_u64;
use sledge_reactor::time::sleep;

use crate::load::Tally;
use crate::rig::{Rig, listen, options, write};

// Deleting this lets a reset lose a command, answer one twice, let a late completion be taken for another command, or
// memory be reused while the controller still had it: each seed interleaves the reactors' I/O with the resets otherwise.
#[test]
fn io_survives_resets() {
    for seed in 0..80 {
        let kind = ModelOptions {
            shadow_doorbells: seed % 3 == 0,
            // Fewer queues than reactors: some submit through others.
            max_io_queues: [64, 1, 2][seed as usize % 3],
            disabling: if seed % 2 == 0 {
                Readiness::AtOnce
            } else {
                Readiness::After(Duration::from_millis(3))
            },
            enabling: if seed % 5 == 0 {
                Readiness::AtOnce
            } else {
                Readiness::After(Duration::from_millis(2))
            },
            ..ModelOptions::default()
        };
        let mut rig = Rig::new(seed, 3, kind);
        // Some completions are late: the commands are held, and are run in some other order.
        rig.model.reorder(Some(seed));
        if seed % 4 == 0 {
            rig.slow_model();
        }
        let controller = rig.attach(options()).unwrap();
        let heard = listen(&controller);
        let tally = Tally::start(&mut rig, &controller);
        let user = controller.clone();
        rig.run(move || async move {
            for _ in 0..5 {
                sleep(Duration::from_micros(random_u64() % 5000)).await;
                user.reset().await.unwrap();
            }
        });
        tally.finish(&mut rig);
        assert!(tally.done() > 100, "seed {seed}: {}", tally.done());
        assert_eq!(tally.failed(), 0, "seed {seed}");
        assert_eq!(controller.state(), State::Live);
        assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Reset; 5], "seed {seed}");
        assert_eq!((controller.statistics().resets, controller.statistics().brought_up), (5, 6));
        let user = controller.clone();
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets a fatal controller stay as it is, or take its users' commands with it.
#[test]
fn a_fatal_controller_is_reset() {
    for seed in 0..4 {
        let kind = ModelOptions { max_io_queues: 1 + seed as u16 % 2, ..ModelOptions::default() };
        let mut rig = Rig::new(seed, 2, kind);
        let controller = rig.attach(options()).unwrap();
        let tally = Tally::start(&mut rig, &controller);
        for _ in 0..3 {
            rig.run_for(5 + seed % 7);
            rig.model.set_fatal();
            rig.run_for(130);
            assert_eq!(controller.state(), State::Live, "seed {seed}");
        }
        tally.finish(&mut rig);
        assert_eq!((tally.failed(), controller.statistics().fatal_resets), (0, 3), "seed {seed}");
        rig.assert_clean();
    }
}

// Deleting this lets a controller that does not come back be tried for ever, or leave commands without an answer.
#[test]
fn a_controller_that_does_not_come_back_is_failed_and_may_be_reset_later() {
    let kind = ModelOptions { timeout_500ms: 1, max_io_queues: 1, ..ModelOptions::default() };
    let mut rig = Rig::new(1, 2, kind);
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(5);
    rig.model.set_readiness(Readiness::Never, Readiness::AtOnce);
    let user = controller.clone();
    rig.run(move || async move {
        assert!(matches!(user.reset().await, Err(DriverError::Timeout { .. })));
    });
    assert_eq!(controller.state(), State::Failed);
    assert_eq!(controller.statistics().bring_up_failures, 3);
    rig.run_for(50);
    tally.finish(&mut rig);
    assert!(tally.failed() > 0);
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Failed]);
    rig.assert_clean();

    rig.model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
    let user = controller.clone();
    rig.run(move || async move { user.reset().await.unwrap() });
    assert_eq!(controller.state(), State::Live);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(5);
    tally.finish(&mut rig);
    assert_eq!(tally.failed(), 0);
    assert!(tally.done() > 0);
}

// Deleting this lets memory be given back while a controller that does not let itself be stopped may still write to it.
#[test]
fn a_controller_that_stays_ready_is_cut_off() {
    for function_reset in [true, false] {
        let kind = ModelOptions { timeout_500ms: 1, function_reset, ..ModelOptions::default() };
        let mut rig = Rig::new(1, 2, kind);
        let controller = rig.attach(options()).unwrap();
        let tally = Tally::start(&mut rig, &controller);
        rig.run_for(5);
        rig.model.set_readiness(Readiness::AtOnce, Readiness::Never);
        let user = controller.clone();
        let result = rig.run(move || async move { user.reset().await });
        assert_eq!(controller.statistics().isolations, 1);
        if function_reset {
            result.unwrap();
            assert_eq!((controller.state(), rig.model.statistics().function_resets), (State::Live, 1));
        } else {
            assert!(result.is_err());
            assert_eq!(controller.state(), State::Failed);
        }
        assert_eq!(controller.statistics().leaks, 0);
        rig.run_for(5);
        tally.finish(&mut rig);
        assert_eq!(tally.failed() > 0, !function_reset);
        let user = controller.clone();
        rig.model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

/// A function whose bus mastering, once on, can't be turned off, and which has no reset.
struct Stubborn {
    model: Arc<Model>,
    stubborn: AtomicBool,
}

impl Function for Stubborn {
    fn address(&self) -> &str {
        self.model.address()
    }

    fn environment(&self) -> &'static str {
        self.model.environment()
    }

    fn register_bytes(&self) -> usize {
        self.model.register_bytes()
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.model.read_u32(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.model.write_u32(offset, value);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.model.read_u64(offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.model.write_u64(offset, value);
    }

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        self.model.allocate(bytes)
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.model.register(start, bytes) }
    }

    fn set_bus_master(&self, on: bool) -> io::Result<()> {
        if self.stubborn.load(Ordering::Relaxed) && !on {
            return Err(io::Error::other("stubborn"));
        }
        self.model.set_bus_master(on)
    }

    fn reset(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn presence(&self) -> Presence {
        self.model.presence()
    }
}

// Deleting this lets memory be given back, to whoever asks next, that a controller which nothing can stop writes to
// later.
#[test]
fn what_nothing_can_stop_keeps_its_memory_for_ever() {
    for detach in [false, true] {
        let max_io_queues = 2 - u16::from(detach);
        let kind = ModelOptions { timeout_500ms: 1, max_io_queues, ..ModelOptions::default() };
        let mut rig = Rig::new(1, 2, kind);
        let function = Arc::new(Stubborn { model: rig.model.clone(), stubborn: AtomicBool::new(true) });
        let handles = rig.sim.handles(rig.node);
        let controller =
            rig.run(move || async move {
                Controller::attach(function, handles[0].clone(), handles, options()).await
            })
            .unwrap();
        // It takes its commands and sits on them.
        rig.model.hold(|queue, _| queue != 0);
        let tally = Tally::start(&mut rig, &controller);
        rig.run_for(5);
        rig.model.set_readiness(Readiness::AtOnce, Readiness::Never);
        let user = controller.clone();
        rig.run(move || async move {
            if detach {
                user.detach().await.unwrap();
            } else {
                assert!(user.reset().await.is_err());
            }
        });
        assert_eq!(controller.statistics().leaks, 1);
        let mapped = rig.model.mapped_bytes();
        assert!(mapped > 0);
        rig.run_for(5);
        tally.finish(&mut rig);
        assert!(tally.failed() > 0);
        if !detach {
            assert_eq!(controller.state(), State::Failed);
            let user = controller.clone();
            rig.run(move || async move {
                assert!(!write(&user, 0, 1).await.is_success());
                user.detach().await.unwrap();
            });
        }
        assert_eq!(controller.state(), State::Detached);
        // But for pages of admin commands that it has answered.
        assert!(rig.model.mapped_bytes() + (64 << 10) > mapped);
        // Now it does what it was asked: all of it lies where it did.
        rig.model.hold_none();
        rig.model.release_all();
        rig.assert_clean();
    }
}
