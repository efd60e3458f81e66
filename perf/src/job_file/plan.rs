//! From sections to jobs: copies, ends, rates, targets, stages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::{Draft, Taken};
use super::syntax::Section;
use super::values::Parsed;
use super::{Defaults, JobFile, JobFileError, Stage};
use crate::job::{Job, Mode, SizeSplit, Target};
use crate::target_name::SCHEME;

/// Of a job that ends with its bytes alone.
const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// Makes jobs of the sections of a file.
pub fn plan(path: &Path, sections: &[Section], defaults: &Defaults) -> Result<JobFile, JobFileError> {
    let mut planner =
        Planner { defaults, stages: Vec::new(), ignored: BTreeSet::new(), warnings: Vec::new(), made: 0 };
    for section in sections {
        planner.add(section)?;
    }
    if planner.stages.is_empty() {
        return Err(JobFileError::File { path: path.into(), error: "there is no job in it".into() });
    }
    let mut warnings = planner.warnings;
    if !planner.ignored.is_empty() {
        let names = planner.ignored.into_iter().collect::<Vec<_>>().join(", ");
        warnings.insert(0, format!("{}: options without a meaning here: {names}", path.display()));
    }
    Ok(JobFile { stages: planner.stages, warnings })
}

struct Planner<'a> {
    defaults: &'a Defaults,
    stages: Vec<Stage>,
    ignored: BTreeSet<String>,
    warnings: Vec<String>,
    /// Jobs made so far, which take cores in turn.
    made: usize,
}

impl Planner<'_> {
    fn add(&mut self, section: &Section) -> Result<(), JobFileError> {
        let mut draft = Draft::default();
        for setting in &section.settings {
            match draft.apply(setting) {
                Ok(Taken::Applied) => {}
                Ok(Taken::Ignored) => {
                    self.ignored.insert(setting.key.clone());
                }
                Err(error) => {
                    let (place, option) = (setting.place.clone(), setting.key.clone());
                    return Err(JobFileError::Option { place, option, error });
                }
            }
        }
        let name = draft.name.clone().unwrap_or_else(|| section.name.clone());
        let failed =
            |error: String| JobFileError::Job { place: section.place.clone(), job: name.clone(), error };
        if draft.is_flat && draft.depth > 1 {
            let depth = draft.depth;
            self.warn(
                &section.place,
                &name,
                &format!("its ioengine has one I/O outstanding, so iodepth={depth} is 1"),
            );
            draft.depth = 1;
        }
        let is_first_of_stage = self.stages.is_empty() || draft.stonewall;
        if is_first_of_stage {
            self.stages.push(Stage::default());
        }
        for copy in 0..draft.numjobs {
            let job = self.job(&name, &draft, copy).map_err(failed)?;
            // There is a stage: the first section begins one.
            if let Some(stage) = self.stages.last_mut() {
                let is_new_group = copy == 0 && draft.new_group;
                stage.add(job, draft.group_reporting, is_new_group);
            }
        }
        Ok(())
    }

    fn warn(&mut self, place: &str, name: &str, words: &str) {
        self.warnings.push(format!("{place}: job {name:?}: {words}"));
    }

    fn job(&mut self, name: &str, draft: &Draft, copy: u16) -> Parsed<Job> {
        let target = match &self.defaults.target {
            Some(target) => target.clone(),
            None => target(name, draft, copy)?,
        };
        let [read_sizes, write_sizes] = sizes(draft);
        let offset = u64::from(copy)
            .checked_mul(draft.offset_increment)
            .and_then(|more| more.checked_add(draft.offset));
        let offset = offset.ok_or("its offset is too large")?;
        let size = draft.size.or(draft.file_size);
        if draft.verify
            && draft.numjobs > 1
            && (draft.filename.is_some() || self.defaults.target.is_some())
            && size.is_none_or(|size| draft.offset_increment < size)
        {
            return Err(
                "copies that verify what they write need an offset_increment of at least their size".into()
            );
        }
        let io_bytes = io_bytes(draft, size, [&read_sizes, &write_sizes])?;
        let cores = match &draft.cores {
            Some(cores) => cores[usize::from(copy) % cores.len()],
            None => *self
                .defaults
                .cores
                .get(self.made % self.defaults.cores.len().max(1))
                .ok_or("no core to run on")?,
        };
        self.made += 1;
        let (rate_iops, read_percent) = rate(draft, [&read_sizes, &write_sizes])?;
        if rate_iops.is_some() && !draft.think_time.is_zero() {
            return Err("a rate and thinktime don't go together".into());
        }
        Ok(Job {
            name: name.to_owned(),
            target,
            mode: draft.mode,
            read_percent,
            read_sizes,
            write_sizes,
            distribution: draft.distribution,
            depth: draft.depth,
            lanes: 1,
            cores: vec![cores],
            offset,
            size,
            start_delay: draft.start_delay,
            ramp: draft.ramp,
            time: draft.runtime.unwrap_or(NO_LIMIT),
            io_bytes,
            // Without a size once through all that there is.
            passes: (!draft.time_based && size.or(draft.io_size).is_none()).then_some(draft.loops),
            rate_iops,
            arrivals: draft.arrivals,
            think_time: draft.think_time,
            fua: draft.fua,
            flush_every: draft.flush_every,
            verify: draft.verify,
            // Each copy has a sequence of its own.
            seed: draft.seed.unwrap_or(self.defaults.seed).wrapping_add(u64::from(copy)),
            busy: self.defaults.busy,
        })
    }
}

impl Stage {
    fn add(&mut self, job: Job, is_grouped: bool, is_new_group: bool) {
        let next = self.report_as.iter().max().map_or(0, |last| last + 1);
        // The group that is open is that of the last job that was grouped.
        let entry = match self.open_group.filter(|_| is_grouped && !is_new_group) {
            Some(open) => open,
            None => next,
        };
        if is_grouped {
            self.open_group = Some(entry);
        } else if is_new_group {
            self.open_group = None;
        }
        self.jobs.push(job);
        self.report_as.push(entry);
    }
}

/// How many bytes end the job; None when time alone does.
fn io_bytes(draft: &Draft, size: Option<u64>, sizes: [&SizeSplit; 2]) -> Parsed<Option<u64>> {
    let by_number = draft.number_ios.map(|ios| {
        let share = f64::from(read_percent(draft)) / 100.0;
        (ios as f64 * (mean(sizes[0]) * share + mean(sizes[1]) * (1.0 - share))) as u64
    });
    if draft.time_based {
        return match draft.runtime {
            Some(_) => Ok(by_number),
            None => Err("time_based needs a runtime".into()),
        };
    }
    let whole = draft.io_size.or(size).map(|bytes| bytes.saturating_mul(draft.loops));
    Ok(match (whole, by_number) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    })
}

fn read_percent(draft: &Draft) -> u8 {
    match draft.mode {
        Mode::Read | Mode::Randread => 100,
        Mode::Rw | Mode::Randrw => draft.read_percent,
        _ => 0,
    }
}

/// Sizes of reads, and of what else the job does.
fn sizes(draft: &Draft) -> [SizeSplit; 2] {
    let [read, write, trim] =
        draft.sizes.clone().map(|sizes| sizes.unwrap_or_else(|| SizeSplit(vec![(4096, 100)])));
    match draft.mode {
        Mode::Trim | Mode::Randtrim => [trim.clone(), trim],
        _ => [read, write],
    }
}

fn mean(sizes: &SizeSplit) -> f64 {
    sizes.0.iter().map(|(bytes, share)| f64::from(*bytes) * f64::from(*share) / 100.0).sum()
}

/// I/Os due each second, and the percentage of reads among them. Rates of reads and writes stand as they are, as in
/// fio, whatever the mix was meant to be.
fn rate(draft: &Draft, sizes: [&SizeSplit; 2]) -> Parsed<(Option<f64>, u8)> {
    let of = |direction: usize, size: f64| {
        let by_iops = draft.rate_iops[direction].map(|rate| rate as f64);
        let by_bytes = draft.rate_bytes[direction].map(|rate| rate as f64 / size);
        by_iops.into_iter().chain(by_bytes).reduce(f64::min)
    };
    let (reads, writes, trims) = (of(0, mean(sizes[0])), of(1, mean(sizes[1])), of(2, mean(sizes[1])));
    let percent = read_percent(draft);
    match (draft.mode, percent) {
        (Mode::Trim | Mode::Randtrim, _) => Ok((trims, percent)),
        (_, 100) => Ok((reads, percent)),
        (_, 0) => Ok((writes, percent)),
        _ => match (reads, writes) {
            (None, None) => Ok((None, percent)),
            (Some(reads), Some(writes)) => {
                let all = reads + writes;
                let percent = (reads / all * 100.0).round().clamp(1.0, 99.0);
                let off = (all * percent / 100.0 - reads).abs();
                if off > 0.05 * reads.min(writes) {
                    return Err(
                        "the rates of reads and writes are too far apart for one job; give each a job".into(),
                    );
                }
                Ok((Some(all), percent as u8))
            }
            _ => Err("a rate for reads or writes alone can't be done here; give each a job".into()),
        },
    }
}

/// What `filename` names, or the file that fio would make up.
fn target(name: &str, draft: &Draft, copy: u16) -> Parsed<Target> {
    if let Some(name) = draft.filename.as_deref().filter(|name| name.starts_with(SCHEME)) {
        return name.parse::<Target>().map_err(|error| error.to_string());
    }
    let path = match &draft.filename {
        Some(filename) => one_path(filename)?,
        None => {
            let format = draft.filename_format.as_deref().unwrap_or("$jobname.$jobnum.$filenum");
            let file = format.replace("$jobnum", &copy.to_string()).replace("$filenum", "0");
            PathBuf::from(file.replace("$jobname", &name.replace('/', ".")))
        }
    };
    let path = match &draft.directory {
        Some(directory) if path.is_relative() => one_path(directory)?.join(path),
        _ => path,
    };
    Ok(Target::File { path, direct: draft.direct })
}

/// A path, in which a colon is written `\:`.
fn one_path(text: &str) -> Parsed<PathBuf> {
    if text.replace("\\:", "").contains(':') {
        return Err(format!("{text:?} is a list; a job has one file here, so give each a job"));
    }
    if text == "-" {
        return Err("standard input is no target".into());
    }
    Ok(text.replace("\\:", ":").into())
}
