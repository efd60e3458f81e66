use super::*;

const AUTHOR: Author = Author { run: 77, seed: 1 };

/// A lane of 64 blocks from block 100, in places of four blocks.
fn verifier() -> Verifier {
    Verifier::new(AUTHOR, Range { first: 100, blocks: 64 }, 512, 4)
}

fn step(kind: Kind, block: u64, blocks: u32) -> Step {
    Step { kind, block, blocks, version: 0 }
}

/// Bytes as a write of `blocks` blocks leaves them.
fn written(author: Author, start: u64, blocks: u32, version: u32) -> Vec<u8> {
    let mut bytes = vec![0; blocks as usize * 512];
    for (block, bytes) in (start..).zip(bytes.chunks_exact_mut(512)) {
        Stamp { run: author.run, seed: author.seed, block, start, blocks, version }.write(bytes);
    }
    bytes
}

/// The memory of a read whose parts are of three blocks each.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    bytes.chunks(3 * 512)
}

/// What verification says of `bytes`, when versions 1, 2 were written to blocks 100 to 107 and 3 to 104 to 107.
fn verdict(bytes: Vec<u8>) -> String {
    let mut verifier = verifier();
    for (block, blocks) in [(100, 8), (100, 8), (104, 4)] {
        let mut write = step(Kind::Write, block, blocks);
        assert!(verifier.claim(&mut write));
        verifier.release(&write, true);
    }
    verifier
        .check_pieces(&step(Kind::Read, 100, 8), pieces(&bytes))
        .map_or_else(|fault| fault.to_string(), |_| "fine".into())
}

fn with(mut bytes: Vec<u8>, block: usize, other: &[u8]) -> Vec<u8> {
    bytes[block * 512..][..other.len()].copy_from_slice(other);
    bytes
}

fn right() -> Vec<u8> {
    with(written(AUTHOR, 100, 8, 2), 4, &written(AUTHOR, 104, 4, 3))
}

// Without it a fault could pass, or be called by another's name and send its finder the wrong way.
#[test]
fn faults_are_told_apart() {
    assert_eq!(verdict(right()), "fine");
    let elsewhere = written(AUTHOR, 120, 1, 2);
    let other_run = written(Author { run: 78, seed: 9 }, 100, 1, 2);
    let half = [&written(AUTHOR, 102, 1, 2)[..256], &written(AUTHOR, 102, 1, 1)[256..]].concat();
    let mut flipped = right();
    flipped[2 * 512 + 300] ^= 1;
    for (bytes, words) in [
        (
            with(right(), 4, &written(AUTHOR, 100, 8, 2)[4 * 512..]),
            "stale: block 104 (byte 53248) holds version 2",
        ),
        (
            with(right(), 1, &written(AUTHOR, 100, 8, 1)[512..1024]),
            "torn: block 101 (byte 51712) holds version 1",
        ),
        (with(right(), 6, &[0; 512]), "torn: block 106 (byte 54272) holds zeroes"),
        (with(right(), 0, &written(AUTHOR, 100, 4, 1)), "stale: block 100 (byte 51200) holds version 1"),
        (
            with(right(), 2, &half),
            "torn: block 102 (byte 52224) begins with version 2 and ends with version 1",
        ),
        (with(right(), 3, &elsewhere), "misplaced: block 103 (byte 52736) holds block 120, version 2"),
        (
            with(right(), 0, &other_run),
            "stale: block 100 (byte 51200) holds version 2 of another run or job (seed 9)",
        ),
        (with(right(), 0, &written(AUTHOR, 100, 1, 4)), "unexpected: block 100 (byte 51200) holds version 4"),
        (with(right(), 1, &[0xa5; 512]), "corrupt: block 101 (byte 51712) has no header"),
        (flipped, "corrupt: block 102 (byte 52224) says version 2"),
    ] {
        let verdict = verdict(bytes);
        assert!(verdict.starts_with(words), "{verdict}\n{words}");
    }
}

// Without it verification could expect a version that a concurrent write is replacing.
#[test]
fn blocks_are_used_by_one_io_at_a_time() {
    let mut verifier = Verifier::new(AUTHOR, Range { first: 100, blocks: 16 }, 512, 4);
    let mut one = step(Kind::Write, 104, 8);
    let mut two = step(Kind::Read, 100, 8);
    assert!(verifier.claim(&mut one));
    assert!(!verifier.claim(&mut two), "eight free blocks, but not side by side");
    let mut three = step(Kind::Write, 108, 4);
    assert!(verifier.claim(&mut three));
    assert_eq!((one.version, three.block, three.version), (1, 112, 2));
    verifier.release(&one, true);
    verifier.release(&three, false);
    assert!(verifier.claim(&mut two));
    assert_eq!(two.block, 100);
    verifier.release(&two, true);
    let back = verifier.read_back(8).unwrap();
    assert_eq!((back.block, back.blocks), (104, 8));
    assert_eq!(verifier.read_back(8), None, "a failed write is not read back");
}

// Without it reading back could skip what was written, or read I/Os larger than their memory.
#[test]
fn reading_back_covers_what_is_known() {
    let mut verifier = verifier();
    for block in [100, 108, 112, 116, 160] {
        let mut write = step(Kind::Write, block, 4);
        assert!(verifier.claim(&mut write));
        verifier.release(&write, true);
    }
    let back: Vec<(u64, u32)> =
        std::iter::from_fn(|| verifier.read_back(8)).map(|step| (step.block, step.blocks)).collect();
    assert_eq!(back, [(100, 4), (108, 8), (116, 4), (160, 4)]);
}

/// What a later run says of bytes from block 100 on, without knowing what was written.
fn later(bytes: &[u8]) -> String {
    let earlier = Earlier::new(None, 512);
    earlier.check((100..).zip(bytes.chunks(512))).map_or_else(|fault| fault.to_string(), |_| "fine".into())
}

// Without it what an earlier run wrote could be damaged unseen, or sound blocks be called damaged.
#[test]
fn blocks_of_an_earlier_run_are_held_against_each_other() {
    let other = Author { run: 3, seed: 1 };
    // A later write over a part, the same by another run, and a write that reaches in from the front.
    for bytes in [
        right(),
        with(right(), 2, &written(other, 102, 3, 1)),
        with(right(), 0, &written(AUTHOR, 96, 6, 9)[4 * 512..]),
    ] {
        assert_eq!(later(&bytes), "fine");
    }
    let mut flipped = right();
    flipped[2 * 512 + 300] ^= 1;
    let half = [&written(AUTHOR, 102, 1, 2)[..256], &written(AUTHOR, 102, 1, 1)[256..]].concat();
    for (bytes, words) in [
        (with(right(), 6, &[0; 512]), "torn: block 106 (byte 54272) holds zeroes"),
        (vec![0; 512], "stale: block 100 (byte 51200) holds zeroes, some version was to be there"),
        (
            with(right(), 1, &written(AUTHOR, 100, 8, 1)[512..1024]),
            "torn: block 101 (byte 51712) holds version 1",
        ),
        (
            with(right(), 0, &written(AUTHOR, 100, 8, 1)[..512]),
            "torn: block 100 (byte 51200) holds version 1, other blocks of the same write hold version 2",
        ),
        (with(right(), 3, &written(AUTHOR, 120, 1, 2)), "misplaced: block 103 (byte 52736) holds block 120"),
        (
            with(right(), 2, &half),
            "torn: block 102 (byte 52224) begins with version 2 and ends with version 1",
        ),
        (with(right(), 1, &[0xa5; 512]), "corrupt: block 101 (byte 51712) has no header"),
        (flipped, "corrupt: block 102 (byte 52224) says version 2"),
    ] {
        let verdict = later(&bytes);
        assert!(verdict.starts_with(words), "{verdict}\n{words}");
    }
}

// Without it a lost write of one block, of which no block says anything, could pass in a later run.
#[test]
fn the_state_of_an_earlier_run_finds_lost_writes() {
    let lane = LaneState { first: 100, versions: vec![2, 3, 0, ZEROED] };
    let state = State { author: AUTHOR, block_bytes: 512, grain: 4, lanes: vec![lane] };
    let earlier = Earlier::new(Some(std::sync::Arc::new(state)), 512);
    let say = |bytes: &[u8]| {
        let checked = earlier.check((100..).zip(bytes.chunks(512)));
        checked.map_or_else(|fault| fault.to_string(), |any| any.to_string())
    };
    let unknown = vec![0xa5; 4 * 512];
    let right = [right(), unknown, vec![0; 4 * 512]].concat();
    assert_eq!(say(&right), "true");
    for (bytes, words) in [
        (
            with(right.clone(), 5, &written(AUTHOR, 104, 4, 2)[512..1024]),
            "torn: block 105 (byte 53760) holds version 2",
        ),
        (
            with(right.clone(), 4, &written(AUTHOR, 104, 4, 2)),
            "stale: block 104 (byte 53248) holds version 2",
        ),
        (
            with(right.clone(), 4, &written(Author { run: 1, seed: 1 }, 104, 4, 3)),
            "stale: block 104 (byte 53248) holds",
        ),
        (
            with(right.clone(), 13, &written(AUTHOR, 113, 1, 1)),
            "stale: block 113 (byte 57856) holds version 1, zeroes",
        ),
    ] {
        let verdict = say(&bytes);
        assert!(verdict.starts_with(words), "{verdict}\n{words}");
    }
}

// Without it a place could be expected to hold what was there before zeroes were written, or be left unchecked.
#[test]
fn zeroes_that_were_written_are_expected() {
    let mut verifier = verifier();
    for kind in [Kind::Write, Kind::Zeroes] {
        let mut io = step(kind, 100, 4);
        assert!(verifier.claim(&mut io));
        verifier.release(&io, true);
    }
    let read = step(Kind::Read, 100, 4);
    assert_eq!(verifier.check_pieces(&read, pieces(&[0; 2048])), Ok(true));
    let old = verifier.check_pieces(&read, pieces(&written(AUTHOR, 100, 4, 1))).unwrap_err().to_string();
    assert!(old.starts_with("stale: block 100 (byte 51200) holds version 1, zeroes were written"), "{old}");
    let mut trim = step(Kind::Trim, 100, 4);
    assert!(verifier.claim(&mut trim));
    verifier.release(&trim, true);
    assert_eq!(
        verifier.check_pieces(&read, pieces(&[9; 2048])),
        Ok(false),
        "of what was deallocated nothing is known"
    );
}
