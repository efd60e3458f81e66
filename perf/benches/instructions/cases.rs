//! The list of cases.

mod bare_drive;
mod dispatch;
mod drive;
mod load;
mod pdu;
mod primitives;
mod raw;
mod reactor;
mod served;

/// What goes wrong while a case is prepared.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One thing that is counted.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the record, and on the command line.
    pub name: &'static str,
    /// Times that a section does it.
    pub operations: u64,
    /// Runs its sections, in the process that callgrind watches.
    pub run: fn() -> Result<(), Failure>,
}

/// All cases, in the order of the table.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(pdu::cases());
    cases.extend(primitives::cases());
    cases.extend(reactor::cases());
    cases.extend(dispatch::cases());
    cases.extend(drive::cases());
    cases
}
