//! The content of a namespace, kept where something was written.
//!
//! Owns the blocks, with their metadata behind their data. Invariant: what lies in `durable` survives a loss of power;
//! what lies in `cached` hides it until it is flushed or lost.

use std::collections::BTreeMap;

use super::options::ModelNamespace;

/// A block with its metadata; `None` is a deallocated one, which reads as zeroes.
type Block = Option<Box<[u8]>>;

/// A namespace and what it holds.
pub(super) struct Media {
    pub namespace: ModelNamespace,
    durable: BTreeMap<u64, Block>,
    cached: BTreeMap<u64, Block>,
}

impl Media {
    pub(super) fn new(namespace: ModelNamespace) -> Self {
        Self { namespace, durable: BTreeMap::new(), cached: BTreeMap::new() }
    }

    /// Bytes of a block with its metadata.
    pub(super) fn stored_bytes(&self) -> usize {
        self.namespace.block_bytes as usize + usize::from(self.namespace.metadata_bytes)
    }

    /// A block with its metadata, if it was written.
    pub(super) fn block(&self, lba: u64) -> Option<&[u8]> {
        self.cached.get(&lba).or_else(|| self.durable.get(&lba))?.as_deref()
    }

    /// Changes a block; `None` deallocates it.
    pub(super) fn set(&mut self, lba: u64, block: Option<&[u8]>, durable: bool) {
        let block = block.map(Box::from);
        if durable {
            self.cached.remove(&lba);
            self.durable.insert(lba, block);
        } else {
            self.cached.insert(lba, block);
        }
    }

    /// Makes everything durable.
    pub(super) fn flush(&mut self) {
        self.durable.append(&mut self.cached);
    }

    /// Loses what is not durable.
    pub(super) fn lose_power(&mut self) {
        self.cached.clear();
    }

    /// Loses everything, and takes another format.
    pub(super) fn format(&mut self, namespace: ModelNamespace) {
        *self = Self::new(namespace);
    }
}
