//! Counts the instructions of the data path's hot primitives and compares them with recorded figures.
//!
//! `cargo bench --workspace --bench instructions [-- [NAME]... [--accept]]`. Instructions, unlike time, are the same
//! on a busy machine. Owns no code of the data path: it calls what everybody calls. Each case runs in a process of its
//! own under callgrind, which this program starts from itself; `measure` says what of it is counted.

mod callgrind;
mod cases;
mod measure;
mod record;

use callgrind::INSIDE;
use cases::Case;
use record::Change;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, thread};

const ACCEPT: &str = "cargo bench --workspace --bench instructions -- --accept";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, name] = arguments.as_slice()
        && first == INSIDE
    {
        return inside(name);
    }
    // Cargo says that this is a benchmark.
    arguments.retain(|argument| argument != "--bench");
    let accept = arguments.iter().any(|argument| argument == "--accept");
    arguments.retain(|argument| argument != "--accept");
    if let Some(unknown) = arguments.iter().find(|argument| argument.starts_with('-')) {
        eprintln!("unknown option {unknown}; there is --accept, and parts of names to select cases");
        return ExitCode::from(2);
    }
    let selected: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| arguments.is_empty() || arguments.iter().any(|part| case.name.contains(part.as_str())))
        .collect();
    if selected.is_empty() {
        eprintln!("no case has such a name");
        return ExitCode::from(2);
    }
    match compare(&selected, accept) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one case, in the process that callgrind watches.
fn inside(name: &str) -> ExitCode {
    let Some(case) = cases::all().into_iter().find(|case| case.name == name) else {
        return ExitCode::from(2);
    };
    match (case.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints the table and says whether nothing grew too much.
fn compare(selected: &[Case], accept: bool) -> Result<bool, cases::Failure> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/recorded.txt");
    let mut recorded = record::read(&path)?;
    let counts = count_all(selected)?;
    println!("{:<44} {:>10} {:>10}  change", "instructions of one", "recorded", "now");
    let (mut worse, mut better, mut unknown) = (0, 0, 0);
    for (case, count) in selected.iter().zip(counts) {
        let now = count as f64 / case.operations as f64;
        let before = recorded.get(case.name).copied();
        let verdict = match record::compare(before, now) {
            Change::Same(percent) => format!("{percent:+.1} %"),
            Change::Less(percent) => {
                better += 1;
                format!("{percent:+.1} %  less")
            }
            Change::More(percent) => {
                worse += 1;
                format!("{percent:+.1} %  MORE THAN {} %", record::LIMIT)
            }
            Change::New => {
                unknown += 1;
                "NOT RECORDED".to_owned()
            }
        };
        let before = before.map_or_else(String::new, |figure| format!("{figure:.1}"));
        println!("{:<44} {before:>10} {now:>10.1}  {verdict}", case.name);
        recorded.insert(case.name.to_owned(), now);
    }
    if accept {
        let names: Vec<&str> = cases::all().iter().map(|case| case.name).collect();
        record::write(&path, &names, &recorded)?;
        println!("recorded in {}", path.display());
        return Ok(true);
    }
    if better > 0 {
        println!("{better} went down by much: keep that with `{ACCEPT}`");
    }
    if worse + unknown > 0 {
        println!("{worse} grew by over {} %, {unknown} are new. If that is meant: `{ACCEPT}`", record::LIMIT);
    }
    Ok(worse + unknown == 0)
}

/// Counts all cases, as many at once as there are processors: instructions don't mind.
fn count_all(selected: &[Case]) -> Result<Vec<u64>, callgrind::CallgrindError> {
    let folder = profiles();
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<_>>> = selected.iter().map(|_| Mutex::new(None)).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(case), Some(place)) = (selected.get(index), results.get(index)) else { return };
                    let result = callgrind::count(case, &folder);
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    // Every place was filled: the threads took all indices.
    results
        .into_iter()
        .filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

/// Where profiles are left: beside the build output that this program is in.
fn profiles() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.parent().unwrap_or(&root).join("build/instructions")
}
