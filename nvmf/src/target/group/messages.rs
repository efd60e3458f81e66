//! What the groups of a target tell each other.
//!
//! Invariants: nothing that a group is told is lost while its reactor lives. What the reactor's ring has no room for waits
//! in a task here, so it must be bounded: decisions, aborts and ends of queues are, by the connections and the commands of
//! admin queues. Failures come as fast as commands: of those only [`MOST_REPORTS`] are on their way, the others miss the
//! error log, which keeps the latest few only. Traffic is told of once a tick, for all controllers of a reactor at once.
//! Messages that had to wait may arrive in another order; each is checked against what is there when it arrives.

use std::cell::Cell;
use std::rc::Rc;

use sledge_reactor::message::Remote;
use sledge_reactor::task::spawn_local;
use sledge_reactor::time::now;

use super::PollGroup;
use crate::target::controller::CommandError;

/// Reports of failed commands that are on their way to other reactors at most.
const MOST_REPORTS: usize = 1024;

/// Controllers of another reactor whose queues here have traffic.
#[derive(Debug, Default)]
pub(super) struct Active {
    controller_ids: Vec<u16>,
    /// Whether their reactor has not yet heard of the last ones.
    telling: Rc<Cell<bool>>,
}

impl PollGroup {
    /// Does something in a group, at once if it is this one. The other one's turn follows.
    pub(super) fn tell(&mut self, reactor: u32, what: impl FnOnce(&mut PollGroup) + Send + 'static) {
        if reactor == self.shared.this {
            what(self);
            return;
        }
        self.send(reactor, what, || ());
    }

    /// Has something done in another reactor's group, and then something here.
    fn send(
        &self,
        reactor: u32,
        what: impl FnOnce(&mut PollGroup) + Send + 'static,
        done: impl FnOnce() + 'static,
    ) {
        let key = self.directory.key;
        let handle = &self.directory.reactors[reactor as usize];
        let sent: Remote<()> = handle.spawn(move || async move {
            if let Some(group) = key.get() {
                let mut group = group.borrow_mut();
                group.shared.now = now();
                what(&mut group);
                group.run_actions();
                group.flush();
                group.run_actions();
            }
        });
        spawn_local(async move {
            // A reactor that is gone has no queues left to tell of.
            let _ = sent.await;
            done();
        });
    }

    /// Tells a controller of a command that failed.
    pub(super) fn report_failure(&mut self, owner: u32, controller_id: u16, error: CommandError) {
        let report = move |group: &mut PollGroup| {
            if let Some(controller) = group.shared.controllers.get_mut(controller_id) {
                controller.command_failed(error);
            }
            group.shared.collect_actions(controller_id);
        };
        if owner == self.shared.this {
            return report(self);
        }
        if self.reports.get() < MOST_REPORTS {
            self.reports.set(self.reports.get() + 1);
            let reports = self.reports.clone();
            self.send(owner, report, move || reports.set(reports.get() - 1));
        }
    }

    /// Notes that a queue of a controller has traffic.
    pub(super) fn note_traffic(&mut self, owner: u32, controller_id: u16) {
        if owner != self.shared.this {
            self.active[owner as usize].controller_ids.push(controller_id);
        } else if let Some(controller) = self.shared.controllers.get_mut(controller_id) {
            controller.activity(self.shared.now);
        }
    }

    /// Tells the controllers of other reactors of their traffic. Once a tick.
    pub(super) fn tell_of_traffic(&mut self) {
        for reactor in 0..self.active.len() {
            let Active { controller_ids, telling } = &mut self.active[reactor];
            if controller_ids.is_empty() {
                continue;
            }
            if telling.replace(true) {
                // Its reactor is slow; the next ones go together with these.
                controller_ids.sort_unstable();
                controller_ids.dedup();
                continue;
            }
            let (controller_ids, telling) = (std::mem::take(controller_ids), telling.clone());
            let tell = move |group: &mut PollGroup| {
                let now = group.shared.now;
                for id in controller_ids {
                    if let Some(controller) = group.shared.controllers.get_mut(id) {
                        controller.activity(now);
                    }
                }
            };
            self.send(reactor as u32, tell, move || telling.set(false));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use sledge_nvme::Status;
    use sledge_nvme::log_page::ParameterLocation;
    use sledge_reactor::local::LocalKey;
    use sledge_reactor::sim::Simulation;
    use sledge_reactor::time::sleep;

    use super::*;
    use crate::target::definition::TargetDefinition;
    use crate::target::group::Directory;

    // Without this a host whose commands fail could have a reactor keep more and more messages to one that is slower; or
    // reports would stop for good once there were too many.
    #[test]
    fn what_waits_for_a_slow_reactor_is_bounded() {
        let mut world = Simulation::new(1);
        let node = world.add_node("target", 2);
        let reactors: Arc<[_]> = world.handles(node).into();
        world
            .block_on_reactor(node, 0, move || async move {
                let directory = Directory { reactors, key: LocalKey::new() };
                let mut group = PollGroup::new(0, directory, Arc::new(TargetDefinition::default()));
                let status = Status::LBA_OUT_OF_RANGE;
                let location = ParameterLocation::NONE;
                let error = CommandError { sqid: 1, cid: 1, status, location, lba: 0, nsid: 1, opcode: 2 };
                for _ in 0..2 {
                    // The other reactor has no turn in between.
                    for tick in 0..10 * MOST_REPORTS {
                        group.report_failure(1, 2, error);
                        group.note_traffic(1, 2 * (tick % 3) as u16);
                        group.tell_of_traffic();
                    }
                    assert_eq!(group.reports.get(), MOST_REPORTS);
                    assert!(group.active[1].telling.get());
                    assert_eq!(group.active[1].controller_ids, [0, 2, 4]);
                    let mut tasks = 0;
                    while group.reports.get() > 0 || group.active[1].telling.get() {
                        sleep(Duration::from_millis(1)).await;
                        tasks += 1;
                        assert!(tasks < 10_000, "the reports never arrive");
                    }
                    group.tell_of_traffic();
                    assert!(group.active[1].controller_ids.is_empty());
                    while group.active[1].telling.get() {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            })
            .unwrap();
    }
}
