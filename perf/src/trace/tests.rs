use super::entries::Entries;
use super::*;
use crate::workload::Step;
use crate::workload::random::Random;
use std::time::Duration;

fn rules() -> Rules {
    Rules::new("t".into())
}

/// The I/Os of a text, or what is wrong with it.
fn read_with(rules: &Rules, text: &[u8]) -> Result<Vec<Entry>, String> {
    let entries = Entries::new(rules, text).map_err(|error| error.to_string())?;
    entries.collect::<Result<_, _>>().map_err(|error: TraceError| error.to_string())
}

fn read(text: &str) -> Result<Vec<Entry>, String> {
    read_with(&rules(), text.as_bytes())
}

fn entry(kind: Kind, offset: u64, length: u32, due: u64, line: u64) -> Entry {
    Entry { kind, length, offset, due, line }
}

// Without it a trace could be replayed as something else than fio 3.33 replays, from whose iologs these lines are.
#[test]
fn lines_mean_what_they_mean_in_fio() {
    let text = "fio version 3 iolog\n27 f add\n168 f open\n173 f write 0 4096\n204 f write 4096 8192\n\
                212 f datasync 12288 0\n\n212 f trim 8192 4096\n300 f read 512 512\n286 f sync 0 0\n286 f close\n";
    let three = [
        entry(Kind::Write, 0, 4096, 0, 4),
        entry(Kind::Write, 4096, 8192, 31_000, 5),
        entry(Kind::Flush, 0, 0, 39_000, 6),
        entry(Kind::Trim, 8192, 4096, 39_000, 8),
        entry(Kind::Read, 512, 512, 127_000, 9),
        // Times don't run backwards.
        entry(Kind::Flush, 0, 0, 127_000, 10),
    ];
    assert_eq!(read(text).unwrap(), three);
    // A wait is until so many milliseconds after the start.
    let text = "fio version 2 iolog\r\nf add\r\nf open\r\nf read 0 512\r\nf wait 20 0\r\nf wait 7\r\nf sync\r\nf read 512 512";
    let two = [
        entry(Kind::Read, 0, 512, 0, 4),
        entry(Kind::Flush, 0, 0, 20_000_000, 7),
        entry(Kind::Read, 512, 512, 20_000_000, 8),
    ];
    assert_eq!(read(text).unwrap(), two);
}

// Without it a rule could be passed over, or change more than it says.
#[test]
fn rules_change_what_they_say() {
    let text = "fio version 3 iolog\n0 f add\n0 f open\n10 f read 10000 512\n30 f write 30000 512\n50 f trim 0 512\n";
    let with = |change: fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        let entries = read_with(&rules, text.as_bytes()).unwrap();
        entries.iter().map(|entry| (entry.offset, entry.due)).collect::<Vec<_>>()
    };
    assert_eq!(with(|_| ()), [(10_000, 0), (30_000, 20_000), (0, 40_000)]);
    assert_eq!(with(|rules| rules.no_stall = true), [(10_000, 0), (30_000, 0), (0, 0)]);
    assert_eq!(with(|rules| rules.time_scale = 200), [(10_000, 0), (30_000, 10_000), (0, 20_000)]);
    assert_eq!(with(|rules| rules.scale = 10), [(1000, 0), (3000, 20_000), (0, 40_000)]);
    assert_eq!(with(|rules| rules.align = 4096), [(8192, 0), (28_672, 20_000), (0, 40_000)]);
    assert_eq!(with(|rules| rules.skip = Rules::parse_skip("read,trim").unwrap()), [(30_000, 20_000)]);
    assert!(Rules::parse_skip("reads").is_err());
}

// Without it a damaged trace could be replayed in part, or its user have to look for what is wrong.
#[test]
fn mistakes_are_named_with_their_line() {
    for (text, words) in [
        ("", "t:0: this is neither \"fio version 2 iolog\" nor"),
        ("fio version 1 iolog\n", "t:1: this is neither"),
        ("fio version 2 iolog\nf add\nf open\nf erase 0 4096\n", "t:4: \"erase\" is none of add, open"),
        ("fio version 2 iolog\nf add\nf read 0\n", "t:3: length is missing"),
        ("fio version 2 iolog\nf add\nf read x 4096\n", "t:3: \"x\" is no offset"),
        ("fio version 2 iolog\nf add\nf read -1 4096\n", "t:3: \"-1\" is no offset"),
        ("fio version 2 iolog\nf add\nf read 0 4096 9\n", "t:3: \"9\" is one word too many"),
        ("fio version 2 iolog\nf add\nf read 0 0\n", "t:3: an I/O of 0 bytes"),
        ("fio version 2 iolog\nf add\nf read 0 4294967296\n", "t:3: an I/O of 4294967296 bytes is too large"),
        ("fio version 2 iolog\nf add\nf read 18446744073709551615 512\n", "t:3: an offset of"),
        ("fio version 2 iolog\nf add\ng read 0 512\n", "t:3: \"g\" was not added before"),
        ("fio version 2 iolog\nf add\ng add\n", "t:3: \"g\" is a second file; a job has one target"),
        ("fio version 2 iolog\nf add\nf wait 99999999999999\nf read 0 512\n", "t:4: a time of over a year"),
        ("fio version 3 iolog\nf add\n", "t:2: \"f\" is no time in microseconds"),
        ("fio version 3 iolog\n0 f add\n5 f wait 7 0\n", "t:3: lines have times in version 3"),
        ("fio version 3 iolog\n0 f\n", "t:2: what is done is missing"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(words), "{text:?}: {error}");
    }
    let long = read(&format!("fio version 2 iolog\n{}\n", "f".repeat(5000))).unwrap_err();
    assert_eq!(long, "t:2: a line of over 4096 bytes");
    let binary = read_with(&rules(), &[0x65, 0x61, 0x74, 0xff, 0x07, b'\n']).unwrap_err();
    assert!(binary.starts_with("t: this is not a text file"), "{binary}");
    let redirected = Rules { is_redirected: true, ..rules() };
    let two = b"fio version 2 iolog\nf add\ng add\nf read 0 512\ng read 512 512\n";
    assert_eq!(read_with(&redirected, two).unwrap().len(), 2);
}

// Without it bytes that nobody thought of could end the program, or be taken for I/Os.
#[test]
fn any_bytes_are_a_trace_or_an_error() {
    let words: [&[u8]; 17] = [
        b"f",
        b"g",
        b"add",
        b"open",
        b"close",
        b"read",
        b"write",
        b"trim",
        b"sync",
        b"wait",
        b"0",
        b"4096",
        b"18446744073709551615",
        b"99999999999999999999999",
        b"-7",
        b"\xff\xfe",
        b"\0",
    ];
    let mut random = Random::new(5);
    let (mut sound, mut wrong) = (0, 0);
    for _ in 0..4000 {
        let version = if random.below(2) == 0 { 2 } else { 3 };
        let mut text =
            format!("fio version {version} iolog\n{}f add\n", if version == 3 { "0 " } else { "" })
                .into_bytes();
        for _ in 0..random.below(6) {
            if random.below(2) == 0 {
                // Sound, as far as it goes.
                let time = if version == 3 { format!("{} ", random.below(1000)) } else { String::new() };
                text.extend(
                    format!("{time}f read {} {}\n", random.below(1 << 40), random.below(4096) + 1).bytes(),
                );
                continue;
            }
            for _ in 0..random.below(6) {
                text.extend_from_slice(words[random.below(words.len() as u64) as usize]);
                text.push(if random.below(9) == 0 { b'\t' } else { b' ' });
            }
            text.push(b'\n');
        }
        // Cut off anywhere, now and then.
        if random.below(4) == 0 {
            text.truncate(random.below(text.len() as u64 + 1) as usize);
        }
        match read_with(&rules(), &text) {
            Ok(entries) => {
                sound += 1;
                assert!(entries.windows(2).all(|pair| pair[0].due <= pair[1].due));
                assert!(entries.iter().all(|entry| entry.length > 0 || entry.kind == Kind::Flush));
            }
            Err(error) => {
                wrong += 1;
                assert!(error.starts_with("t:") && error.lines().count() == 1, "{error}");
            }
        }
    }
    assert!(sound > 500 && wrong > 500, "{sound} {wrong}");
}

// Without it a longer trace could take more memory, or its later part get lost between two batches.
#[test]
fn a_long_trace_is_replayed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    let mut text = String::from("fio version 3 iolog\n0 f add\n0 f open\n");
    (0..20_000u64).for_each(|number| text += &format!("{} f read {} 512\n", number / 2, number * 512));
    std::fs::write(&path, text).unwrap();
    let rules = Rules::new(path.clone());
    let summary = Summary::of(&rules).unwrap();
    assert_eq!((summary.ios, summary.largest, summary.end), ([20_000, 0, 0, 0], 512, (10_240_000, 20_003)));
    assert_eq!((summary.unaligned, summary.file.as_deref()), ([None, Some(4)], Some("f")));
    let replay = Replay::open(&rules).unwrap();
    let start = sledge_reactor::time::Instant::from_nanos(1000);
    replay.start(start);
    let mut number = 0;
    while !replay.is_over() {
        let due = start + Duration::from_micros(number / 2);
        let Some(entry) = replay.peek() else { continue };
        assert_eq!((entry.offset, replay.wake_at()), (number * 512, Some(due)));
        if number > 2 {
            assert_eq!(replay.due(start + Duration::from_micros(number / 2 - 1)), None);
        }
        assert_eq!((replay.due(due), replay.take()), (Some(due), Some(entry)));
        number += 1;
    }
    assert_eq!((number, replay.failure(), replay.wake_at()), (20_000, None, None));
    // What becomes of it in the meantime.
    std::fs::write(&path, "fio version 2 iolog\nf add\nf read 0 512\nf read 0\n").unwrap();
    let replay = Replay::open(&rules).unwrap();
    while !replay.is_over() {
        replay.take();
    }
    assert!(replay.failure().unwrap().ends_with("long:4: length is missing"));
}

// Without it what is written could not be replayed, here or by fio, or lack an I/O.
#[test]
fn what_is_recorded_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut simulation = sledge_reactor::sim::Simulation::new(1);
    let node = simulation.add_node("host", 1);
    let steps: Vec<Step> = (0..3000u64)
        .map(|number| {
            let kind = [Kind::Read, Kind::Write, Kind::Trim][number as usize % 3];
            Step { kind, block: number, blocks: 8, version: 0 }
        })
        .collect();
    let (to, sent) = (path.clone(), steps.clone());
    let recorded = simulation.block_on(node, || async move {
        let mut recorder = Recorder::begin(&to, "/dev/x", 9)?;
        for (number, step) in sent.iter().enumerate() {
            if number == 1500 {
                sledge_reactor::time::sleep(Duration::from_millis(7)).await;
            }
            recorder.add(step);
        }
        recorder.end()
    });
    assert_eq!(recorded.unwrap(), Ok(()));
    let entries: Vec<Entry> = Entries::open(&Rules::new(path)).unwrap().collect::<Result<_, _>>().unwrap();
    let of = |entry: &Entry| (entry.kind, entry.offset / 512, entry.length / 512);
    assert!(entries.iter().map(of).eq(steps.iter().map(|step| (step.kind, step.block, step.blocks))));
    assert!(entries[1499].due < 7_000_000 && entries[1500].due >= 7_000_000);
    assert!(Recorder::begin(folder.path(), "/dev/x", 9).is_err_and(|error| error.contains("directory")));
    assert!(Recorder::begin(&folder.path().join("b"), "a b", 9).is_err_and(|error| error.contains("blanks")));
}
