//! Bytes from a management client, and the same bytes as a configuration file.
//!
//! What must hold: cutting does not depend on how the bytes arrive; what is cut is what `serde_json` takes, but
//! for what only it checks; reading requests, calling edits on a model and finding places never panics, and an
//! edit that fails leaves no device behind.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sledge_target::config::document::Document;
use sledge_target::config::load;
use sledge_target::methods;
use sledge_target::model::{Draft, Environment, Model};
use sledge_target::rpc::framing::{FrameError, Framer, MAX_REQUEST_BYTES};
use sledge_target::rpc::message::Request;

fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut framer = Framer::new();
    let mut found = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_value() {
                Ok(Some(value)) => {
                    assert!(!value.is_empty() && value.len() <= MAX_REQUEST_BYTES);
                    found.push(value);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// Edits that make nothing outside the process and little inside it.
fn is_harmless(method: &str, params: &Value) -> bool {
    let small = |name: &str| params[name].as_u64().is_none_or(|number| number < 1 << 16);
    !method.starts_with("bdev_uring") && !method.starts_with("bdev_aio") && small("num_blocks")
}

fn edit(draft: &mut Draft, method: &str, params: Value) {
    if is_harmless(method, &params) {
        let _ = methods::run_edit(draft, method, params, true);
    }
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let (whole, error) = frames(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(frames(&[front, back]), (whole.clone(), error));
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(frames(&single), (whole.clone(), error));

    let model = Model::new(Environment::new(1));
    let mut draft = model.draft(Default::default());
    for text in &whole {
        let value: Value = match serde_json::from_slice(text) {
            Ok(value) => value,
            Err(error) => {
                // What the framer leaves to `serde_json`: UTF-8, surrogates, numbers that are too large.
                let words = error.to_string();
                let known = ["unicode", "surrogate", "hex escape", "number out of range", "UTF-8"];
                assert!(known.iter().any(|known| words.contains(known)), "{words}");
                continue;
            }
        };
        let requests = if let Value::Array(batch) = value { batch } else { vec![value] };
        for request in requests {
            if let Ok(request) = Request::from_value(request) {
                edit(&mut draft, &request.method, request.params);
            }
        }
    }
    drop(draft);
    assert!(model.devices.list().is_empty(), "a draft left a device behind");

    if let Ok(document) = Document::parse(Path::new("fuzz"), bytes.to_vec()) {
        match load::entries(document.value()) {
            Ok(entries) => {
                if entries.iter().all(|entry| is_harmless(&entry.method, &entry.params)) {
                    let mut draft = model.draft(Default::default());
                    if let Err(fault) = load::edit(&mut draft, &entries) {
                        check_place(&document, &fault);
                    }
                }
            }
            Err(fault) => check_place(&document, &fault),
        }
        assert!(model.devices.list().is_empty(), "a draft left a device behind");
    }
});

fn check_place(document: &Document, fault: &load::Fault) {
    let error = document.error(&fault.path, fault.error.to_string());
    assert!(error.place.line > 0 && error.place.column > 0);
    assert!(!fault.place().contains('\n') || !fault.path.is_empty());
}
