//! What both targets do: decode the same bytes at once and in two pieces, and compare.

use sledge_nvmf::decoder::{Decoder, Event, Limits, Role};
use sledge_nvmf::pdu::Framing;

const LIMITS: Limits = Limits { max_in_capsule: 8192, max_host_data: 131_072 };

fn framing(choice: u8) -> Framing {
    Framing { header_digest: choice & 1 != 0, data_digest: choice & 2 != 0, alignment: (choice >> 3) & 31 }
}

/// Decodes and returns (events without data runs, data bytes seen), checking what must always hold.
fn decode(role: Role, choice: u8, stream: &[u8], cut: usize, direct: bool) -> (Vec<String>, usize) {
    let mut decoder = Decoder::new(role);
    if choice & 4 != 0 {
        decoder.initialized(framing(choice), LIMITS);
    }
    let mut log = Vec::new();
    let mut data = 0;
    let (front, back) = stream.split_at(cut);
    for mut input in [front, back] {
        loop {
            if direct {
                // As a connection does that receives into the command's own memory.
                let taken = decoder.data_remaining().min(input.len());
                if taken > 0 {
                    let (run, rest) = input.split_at(taken);
                    decoder.data_received(run);
                    data += taken;
                    input = rest;
                }
            }
            let before = input.len();
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Data(run))) => {
                    assert!(!run.is_empty());
                    data += run.len();
                }
                Ok(Some(event)) => {
                    if matches!(event, Event::InitializeRequest(_) | Event::InitializeResponse(_)) {
                        decoder.initialized(framing(choice), LIMITS);
                    }
                    log.push(format!("{event:?}"));
                }
                Err(error) => {
                    assert!(decoder.is_closed());
                    assert!(error.header.len() <= 128);
                    log.push(format!("{error:?}"));
                }
            }
            assert!(input.len() <= before);
        }
        assert!(input.is_empty());
    }
    (log, data)
}

/// One run of the fuzzer: byte 0 chooses digests, alignment and whether initialization is past; byte 1 where to cut.
pub fn run(role: Role, bytes: &[u8]) {
    let [choice, cut, stream @ ..] = bytes else { return };
    let cut = stream.len() * usize::from(*cut) / 255;
    let whole = decode(role, *choice, stream, stream.len(), false);
    assert_eq!(whole, decode(role, *choice, stream, cut, false));
    assert_eq!(whole, decode(role, *choice, stream, cut, true));
}
