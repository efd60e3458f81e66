//! Any bytes to the host's decoder.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use sledge_nvmf::decoder::Role;

fuzz_target!(|bytes: &[u8]| common::run(Role::Host, bytes));
