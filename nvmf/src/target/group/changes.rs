//! A reactor's part in a change of what is served: prepared, then served, then told to hosts.
//!
//! Invariant: hosts are told of a change only when every reactor serves it. They act on it at once, over queues on any
//! reactor, and what they are told of must be there.

use std::sync::Arc;

use sledge_reactor::time::now;

use super::PollGroup;
use crate::target::definition::TargetDefinition;

impl PollGroup {
    /// Opens the channels that a definition needs. See [`crate::target::namespace_table::NamespaceTable::prepare`].
    pub fn prepare(&mut self, definition: &TargetDefinition) -> Result<(), (String, String)> {
        self.shared.namespaces.prepare(definition)
    }

    /// Serves a definition from now on.
    pub fn commit(&mut self, definition: &Arc<TargetDefinition>) {
        self.shared.now = now();
        self.shared.definition = definition.clone();
        for gone in self.shared.namespaces.commit(definition) {
            self.connections.iter_mut().flatten().for_each(|connection| connection.namespace_gone(&gone));
        }
    }

    /// Tells controllers, and through them hosts, what is served by all reactors.
    pub fn announce(&mut self, definition: &Arc<TargetDefinition>) {
        self.shared.now = now();
        self.shared.announced = definition.clone();
        let now = self.shared.now;
        for id in self.shared.controllers.ids() {
            if let Some(controller) = self.shared.controllers.get_mut(id) {
                let subsystem = definition.subsystems.get(&controller.identity().subsystem_nqn);
                controller.definition_changed(subsystem, definition, now);
            }
            self.shared.collect_actions(id);
        }
        self.run_actions();
        self.flush();
        self.run_actions();
    }
}
