//! The configuration: reading it with the place of every value ([`document`]), and making what it says
//! ([`load`]). Writing it is [`crate::model::save`].

pub mod document;
pub mod load;
