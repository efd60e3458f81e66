//! The options of `run`, and the jobs they stand for: one for each target, all of the same shape.

use crate::arguments::{parse_cores, parse_host, parse_nqn, parse_seconds, parse_size};
use crate::job::{
    Arrivals, Distribution, Job, Mode, NO_LIMIT, NvmeTcp, SizeSplit, SteadyState, Target, Walk, ZoneWalk,
    Zones, parse_percentiles,
};
use crate::job_file::{self, CommandLine, Defaults, Stage};
use crate::report::Format;
use crate::trace::Trace;
use crate::trace_options::TraceArguments;
use clap::{Args, ValueEnum};
use sledge_nvme::fabrics::Nqn;
use sledge_reactor::options::CoreList;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// A fio job file. What it says of the load stands in place of options; a target given here stands in place of
    /// its filenames.
    #[arg(value_name = "FILE.fio", conflicts_with_all = [
        "read_iolog", "write_iolog", "rw", "identical", "zonesize", "rwmix", "trims", "zeroes", "bs", "bssplit", "distribution", "percentage_random", "blockalign", "iodepth",
        "queues", "time", "ramp", "steady", "offset", "size", "io_bytes", "number_ios", "rate", "arrivals",
        "think_time", "fua", "flush_every", "buffered", "verify", "verify_only", "no_read_back", "verify_state",
    ])]
    pub job_file: Option<PathBuf>,
    /// A command line of fio's, in place of a job file.
    #[arg(skip)]
    pub fio: Option<CommandLine>,
    /// What the load goes to: nvme-tcp://ADDRESS:PORT/NQN?nsid=1&hdgst&ddgst or the path of a file or device. Several
    /// targets get their load at the same time.
    #[arg(long = "target", short = 'r', alias = "filename", value_name = "TARGET", conflicts_with = "nqn", required_unless_present_any = ["nqn", "job_file"])]
    pub targets: Vec<Target>,
    /// Address of the target.
    #[arg(long, default_value = "127.0.0.1", value_parser = parse_host)]
    pub traddr: IpAddr,
    /// Port of the target.
    #[arg(long, default_value_t = 4420)]
    pub trsvcid: u16,
    /// Subsystem to connect to.
    #[arg(long, value_parser = parse_nqn)]
    pub nqn: Option<Nqn>,
    /// Host NQN; one is made up when it is not given.
    #[arg(long, value_parser = parse_nqn)]
    pub hostnqn: Option<Nqn>,
    /// Namespace.
    #[arg(long, default_value_t = 1)]
    pub nsid: u32,
    /// Which I/O: read, write, rw, randread, randwrite, randrw, trim, randtrim, trimwrite, randtrimwrite. Writes destroy
    /// what is on the target. As in fio, read:64k leaves 64 KiB out after each I/O, read:-8k goes backwards, and
    /// randread:8 draws a place for each run of 8 I/Os.
    #[arg(long, short = 'w', alias = "readwrite", value_parser = parse_pattern, default_value = "randread", allow_hyphen_values = true)]
    pub rw: Pattern,
    /// The I/Os of a run (randread:8) go to one place, rather than on behind one another.
    #[arg(long)]
    pub identical: bool,
    /// Go from zone to zone, and on to the next one when so many bytes have been moved in one.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub zonesize: Option<u64>,
    /// Bytes of a zone. [default: the zonesize]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, requires = "zonesize")]
    pub zonerange: Option<u64>,
    /// Bytes between zones. [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, requires = "zonesize")]
    pub zoneskip: Option<u64>,
    /// Percentage of reads in rw and randrw.
    #[arg(long, short = 'M', alias = "rwmixread", default_value_t = 70,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmix: u8,
    /// Out of a hundred I/Os that don't read, so many deallocate instead of writing.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trims: u8,
    /// Out of a hundred I/Os that don't read, so many are Write Zeroes, which moves no data.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub zeroes: u8,
    /// A trace, instead of a load, or of a load.
    #[command(flatten)]
    pub trace: TraceArguments,
    /// Bytes of one I/O; k and m are 1024 and 1024 * 1024. Two sizes with a comma between are those of reads and of
    /// writes.
    #[arg(long, short = 'o', alias = "blocksize", default_value = "4k", value_parser = parse_two_sizes)]
    pub bs: (u32, u32),
    /// Several sizes, each with its percentage: 4k/60:64k/40. Two lists with a comma between are those of reads and of
    /// writes.
    #[arg(long, value_parser = parse_splits, conflicts_with = "bs")]
    pub bssplit: Option<Splits>,
    /// Where random I/O goes: uniform, zipf:THETA (1.2 when it is left out), pareto:H (0.2), or zones with their
    /// percentages of the I/Os and of the range, such as zoned:50/5:30/15:20/80.
    #[arg(long, alias = "random_distribution", default_value = "uniform", value_parser = parse_distribution)]
    pub distribution: Distribution,
    /// Out of a hundred I/Os of a random mode, so many go to random places; the others go on behind one another.
    #[arg(long, alias = "percentage_random", value_name = "PERCENT", default_value_t = 100,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub percentage_random: u8,
    /// Random places are multiples of so many bytes. [default: the smallest size]
    #[arg(long, value_name = "BYTES", value_parser = parse_block)]
    pub blockalign: Option<u32>,
    /// I/Os outstanding on each queue.
    #[arg(long, short = 'q', default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub iodepth: u16,
    /// Cores to use, one reactor each: a list such as 1,3-5 or a mask such as 0x2.
    #[arg(long, short = 'c', default_value = "0", value_parser = parse_cores)]
    pub cores: CoreList,
    /// Queue pairs on each core.
    #[arg(long, short = 'P', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queues: u16,
    /// Seconds to measure. [default: 10; of a trace all of it]
    #[arg(long, short = 't', alias = "runtime", value_parser = parse_seconds)]
    pub time: Option<f64>,
    /// Seconds of load before measuring.
    #[arg(long, alias = "ramp_time", default_value_t = 0.0, value_parser = parse_seconds)]
    pub ramp: f64,
    /// End as soon as the rate is steady: iops:LIMIT, iops_slope:LIMIT, bw:LIMIT or bw_slope:LIMIT, where a limit with
    /// % is one of the mean. Every second of the window has to be so close to the mean, or the slope of the line of
    /// best fit has to be below that, a second.
    #[arg(long, value_name = "CRITERION", value_parser = SteadyState::parse)]
    pub steady: Option<SteadyState>,
    /// Seconds that --steady looks at.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds, requires = "steady")]
    pub steady_window: f64,
    /// Seconds that are measured before the first window of --steady begins.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_seconds, requires = "steady")]
    pub steady_after: f64,
    /// First byte to use, or such a percentage of the target as 25%.
    #[arg(long, default_value = "0", value_parser = parse_amount)]
    pub offset: Amount,
    /// Use only so many bytes from there on, or such a percentage of the target as 50%. A file that is written and
    /// not there is made with this size.
    #[arg(long, value_parser = parse_amount)]
    pub size: Option<Amount>,
    /// End when so many bytes have been moved, if that is before the time is over.
    #[arg(long, alias = "io_size", value_parser = parse_size)]
    pub io_bytes: Option<u64>,
    /// End after so many I/Os, if that is before the time is over.
    #[arg(long, alias = "number_ios", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub number_ios: Option<u64>,
    /// I/Os that are due each second on each target, whether it keeps up or not; latency counts from when an I/O was
    /// due.
    #[arg(long, conflicts_with = "think_time")]
    pub rate: Option<f64>,
    /// When I/Os of --rate are due.
    #[arg(long, value_enum, default_value = "even", requires = "rate")]
    pub arrivals: Arrivals,
    /// Seconds (such as 0.001) that each place of a queue pauses after each of its I/Os.
    #[arg(long, default_value_t = 0.0, value_parser = parse_seconds)]
    pub think_time: f64,
    /// Writes are durable when they end (FUA).
    #[arg(long)]
    pub fua: bool,
    /// Flush after so many writes of a queue.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub flush_every: Option<u32>,
    /// Files and devices: go through the page cache.
    #[arg(long)]
    pub buffered: bool,
    /// Never sleep: the reactors poll all the time.
    #[arg(long)]
    pub busy: bool,
    /// Print the report as JSON: short for --output-format json.
    #[arg(long, conflicts_with = "output_format")]
    pub json: bool,
    /// What the report is printed as.
    #[arg(long, value_enum, default_value = "text")]
    pub output_format: Format,
    /// Print the report to this file.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write a page with plots to this file, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Percentiles of latency to report, such as 50:99:99.9.
    #[arg(long, value_name = "LIST", value_parser = parse_percentile_list)]
    pub percentiles: Option<PercentileList>,
    /// A line on standard error every so many seconds, terminal or not.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub status_interval: Option<f64>,
    /// Only say what would run.
    #[arg(long)]
    pub parse_only: bool,
    /// Ask for header digests.
    #[arg(long)]
    pub header_digest: bool,
    /// Ask for data digests.
    #[arg(long)]
    pub data_digest: bool,
    /// Check what is read against what was written, and read everything back at the end. With a --rw that only reads:
    /// check what an earlier run with --verify wrote.
    #[arg(long)]
    pub verify: bool,
    /// Go once through everything and check what an earlier run with --verify wrote; nothing is written.
    #[arg(long, conflicts_with_all = [
        "rw", "verify", "time", "ramp", "io_bytes", "number_ios", "rate", "steady", "no_read_back", "fua", "flush_every",
    ])]
    pub verify_only: bool,
    /// With --verify: don't read back at the end.
    #[arg(long, requires = "verify")]
    pub no_read_back: bool,
    /// A file for what verification knows at the end: a run that writes makes it, one that only reads holds each block
    /// against it, and finds lost writes, too.
    #[arg(long, value_name = "FILE")]
    pub verify_state: Option<PathBuf>,
    /// Carry on over lost connections: reconnect and send again what was outstanding.
    #[arg(long)]
    pub reconnect: bool,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Process of the target, to report the processor time it takes.
    #[arg(long)]
    pub target_pid: Option<u32>,
    /// Unix socket on which the target's process listens (its RPC socket), instead of --target-pid.
    #[arg(long, conflicts_with = "target_pid")]
    pub target_socket: Option<PathBuf>,
}

/// Percentiles in rising order.
#[derive(Clone, Debug, PartialEq)]
pub struct PercentileList(pub Vec<f64>);

/// A part of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of it.
    Percent(u8),
}

/// Which I/O, with its holes or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    mode: Mode,
    walk: Walk,
}

/// Sizes of reads and of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits(pub SizeSplit, pub SizeSplit);

impl RunArguments {
    /// What the report is printed as.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output_format }
    }

    /// How often a line of progress is written that stays.
    pub fn status_interval(&self) -> Option<Duration> {
        self.status_interval.filter(|seconds| *seconds > 0.0).map(Duration::from_secs_f64)
    }

    /// What follows one another: the stages of the job file, or one stage of one job for each target. And warnings.
    ///
    /// # Errors
    /// When the job file can't be read, or several targets would take the place of its filenames.
    pub fn stages(&self) -> Result<(Vec<Stage>, Vec<String>), String> {
        let mut targets = self.targets();
        if self.verify_state.is_some() && targets.len() > 1 {
            return Err("one --verify-state is of one target; give each target a run of its own".into());
        }
        if self.verify_state.is_some() && !self.verify && !self.verify_only {
            return Err("--verify-state goes with --verify or --verify-only".into());
        }
        if self.trace.write_iolog.is_some() && targets.len() > 1 {
            return Err("one --write-iolog is of one target; give each target a run of its own".into());
        }
        let Some(path) = &self.job_file else {
            let mut jobs = self.jobs();
            // The target is said: it stands for every file of the trace.
            if let Some(rules) = self.trace.rules(true) {
                let trace = Trace::of(rules).map_err(|error| error.to_string())?;
                jobs = jobs.into_iter().map(|job| trace.clone().instead_of_load(job)).collect();
            }
            return Ok((vec![Stage::new(jobs)], Vec::new()));
        };
        if targets.len() > 1 {
            return Err("a job file takes one target of the command line, in place of its filenames".into());
        }
        let defaults = Defaults {
            target: targets.pop(),
            cores: self.cores.iter().flatten().collect(),
            busy: self.busy,
            seed: self.seed,
        };
        let file = match &self.fio {
            Some(line) => job_file::take(line, &defaults),
            None => job_file::read(path, &defaults),
        };
        let mut file = file.map_err(|error| error.to_string())?;
        for job in file.stages.iter_mut().flat_map(|stage| &mut stage.jobs) {
            self.settle(&mut job.target);
            if let Some(PercentileList(percentiles)) = &self.percentiles {
                job.percentiles.clone_from(percentiles);
            }
        }
        Ok((file.stages, file.warnings))
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = self.targets.clone();
        if let Some(nqn) = &self.nqn {
            targets.push(Target::NvmeTcp(NvmeTcp {
                traddr: self.traddr,
                trsvcid: self.trsvcid,
                nqn: nqn.to_string(),
                hostnqn: None,
                nsid: self.nsid,
                header_digest: false,
                data_digest: false,
                reconnect: false,
            }));
        }
        targets
    }

    /// The jobs: one for each target.
    pub fn jobs(&self) -> Vec<Job> {
        let targets = self.targets();
        let several = targets.len() > 1;
        let kind = match (self.verify_only, &self.trace.read_iolog) {
            (true, _) => "verify",
            (_, Some(_)) => "replay",
            _ => self.rw.mode.name(),
        };
        let name = |index: usize| if several { format!("{kind}-{}", index + 1) } else { kind.to_owned() };
        targets.into_iter().enumerate().map(|(index, target)| self.job(name(index), target)).collect()
    }

    /// What the command line says of every target.
    fn settle(&self, target: &mut Target) {
        match target {
            Target::NvmeTcp(target) => {
                target.header_digest |= self.header_digest;
                target.data_digest |= self.data_digest;
                target.reconnect |= self.reconnect;
                if let Some(nqn) = &self.hostnqn {
                    target.hostnqn.get_or_insert_with(|| nqn.to_string());
                }
            }
            Target::Pcie(_) => {}
            Target::File { direct, .. } => *direct &= !self.buffered,
        }
    }

    fn walk(&self) -> Walk {
        let zones = self.zonesize.map(|size| ZoneWalk {
            size,
            range: self.zonerange.unwrap_or(size),
            skip: self.zoneskip.unwrap_or(0),
        });
        Walk { again: self.identical, zones, ..self.rw.walk }
    }

    fn job(&self, name: String, mut target: Target) -> Job {
        self.settle(&mut target);
        let (read_sizes, write_sizes) = match &self.bssplit {
            Some(Splits(reads, writes)) => (reads.clone(), writes.clone()),
            None => (SizeSplit::one(self.bs.0), SizeSplit::one(self.bs.1)),
        };
        let steady = self.steady.map(|steady| SteadyState {
            window: Duration::from_secs_f64(self.steady_window),
            after: Duration::from_secs_f64(self.steady_after),
            ..steady
        });
        let (offset, offset_percent) = match self.offset {
            Amount::Bytes(bytes) => (bytes, 0),
            Amount::Percent(percent) => (0, u16::from(percent)),
        };
        let (size, size_percent) = match self.size {
            Some(Amount::Percent(percent)) => (None, Some(percent)),
            Some(Amount::Bytes(bytes)) => (Some(bytes), None),
            None => (None, None),
        };
        let job = Job {
            name,
            mode: self.rw.mode,
            walk: self.walk(),
            read_percent: self.rwmix,
            trim_percent: self.trims,
            zeroes_percent: self.zeroes,
            read_sizes,
            write_sizes,
            distribution: self.distribution,
            random_percent: self.percentage_random,
            align: self.blockalign,
            depth: self.iodepth,
            lanes: self.queues,
            cores: self.cores.iter().flatten().collect(),
            offset,
            size,
            percentages: (offset_percent, size_percent),
            ramp: Duration::from_secs_f64(self.ramp),
            time: match (self.time, &self.trace.read_iolog) {
                (None, Some(_)) => NO_LIMIT,
                (time, _) => Duration::from_secs_f64(time.unwrap_or(10.0)),
            },
            record: self.trace.write_iolog.clone(),
            io_bytes: self.io_bytes,
            io_count: self.number_ios,
            rate_iops: self.rate,
            arrivals: self.arrivals,
            think_time: Duration::from_secs_f64(self.think_time),
            fua: self.fua,
            flush_every: self.flush_every,
            verify: self.verify,
            read_back: !self.no_read_back,
            verify_state: self.verify_state.clone(),
            steady,
            percentiles: self.percentiles.clone().map_or(Vec::new(), |PercentileList(list)| list),
            seed: self.seed,
            busy: self.busy,
            ..Job::new(target)
        };
        if !self.verify_only {
            return job;
        }
        // Once through everything, however long that takes.
        Job { mode: Mode::Read, walk: Walk::default(), verify: true, passes: Some(1), time: NO_LIMIT, ..job }
    }
}

/// Reads a mode, and what follows it.
fn parse_pattern(text: &str) -> Result<Pattern, String> {
    let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let mode = Mode::from_str(name, true).map_err(|_| {
        let names = Mode::value_variants().iter().map(|mode| mode.name()).collect::<Vec<_>>();
        format!("{name:?} is none of {}", names.join(", "))
    })?;
    let walk = rest.map(|rest| Walk::parse(rest, mode.is_random(), parse_size)).transpose()?;
    Ok(Pattern { mode, walk: walk.unwrap_or_default() })
}

fn parse_block(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "too large for one I/O".into())
}

fn parse_amount(text: &str) -> Result<Amount, String> {
    match text.trim() {
        "0" => Ok(Amount::Bytes(0)),
        text => match text.strip_suffix('%') {
            Some(number) => {
                let percent = number.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent));
                percent
                    .map(Amount::Percent)
                    .ok_or_else(|| format!("{text:?} is not a percentage from 1 to 100"))
            }
            None => parse_size(text).map(Amount::Bytes),
        },
    }
}

fn parse_percentile_list(text: &str) -> Result<PercentileList, String> {
    parse_percentiles(text).map(PercentileList)
}

fn parse_two_sizes(text: &str) -> Result<(u32, u32), String> {
    match text.split_once(',') {
        Some((reads, writes)) => Ok((parse_block(reads)?, parse_block(writes)?)),
        None => parse_block(text).map(|bytes| (bytes, bytes)),
    }
}

/// Reads `4k/60:64k/40`; shares that are left out are equal parts of what remains.
pub fn parse_split(text: &str) -> Result<SizeSplit, String> {
    let mut sizes = Vec::new();
    let mut open = Vec::new();
    let mut left = 100u8;
    for part in text.split(':') {
        let (size, share) = match part.split_once('/') {
            Some((size, share)) if !share.is_empty() => {
                let share: u8 = share.parse().map_err(|_| format!("{share:?} is not a percentage"))?;
                left = left.checked_sub(share).ok_or("the percentages add up to more than 100")?;
                (size, share)
            }
            Some((size, _)) => (size, 0),
            None => (part, 0),
        };
        if !part.contains('/') || part.ends_with('/') {
            open.push(sizes.len());
        }
        sizes.push((parse_block(size)?, share));
    }
    let count = open.len() as u8;
    for (number, index) in (0..count).zip(open) {
        sizes[index].1 = left / count + u8::from(number < left % count);
    }
    if count == 0 && left > 0 {
        return Err(format!("the percentages add up to {}, not 100", 100 - left));
    }
    sizes.retain(|(_, share)| *share > 0);
    Ok(SizeSplit(sizes))
}

fn parse_splits(text: &str) -> Result<Splits, String> {
    match text.split_once(',') {
        Some((reads, writes)) => Ok(Splits(parse_split(reads)?, parse_split(writes)?)),
        None => parse_split(text).map(|split| Splits(split.clone(), split)),
    }
}

/// Reads `uniform`, `zipf:1.2` or `pareto:0.2`.
pub fn parse_distribution(text: &str) -> Result<Distribution, String> {
    let (name, parameter) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let number = |usual: f64| match parameter {
        None => Ok(usual),
        Some(text) => text.parse::<f64>().map_err(|_| format!("{text:?} is not a number")),
    };
    match name {
        "uniform" | "random" if parameter.is_none() => Ok(Distribution::Uniform),
        "zipf" => number(1.2).map(Distribution::Zipf),
        "pareto" => number(0.2).map(Distribution::Pareto),
        "zoned" => Zones::parse(parameter.unwrap_or_default()).map(Distribution::Zoned),
        _ => Err("there are uniform, zipf:THETA, pareto:H and zoned:I/Os/SIZE:...".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn jobs(line: &str) -> Result<Vec<Job>, String> {
        let words = format!("sledge-perf run {line}");
        let arguments = Arguments::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
        let Command::Run(options) = arguments.command else { panic!("not run") };
        Ok(options.jobs())
    }

    // Without it the documented command line could stop parsing, or an option be dropped on its way to the job.
    #[test]
    fn options_become_jobs() {
        let one = jobs(
            "--nqn nqn.2016-06.io.spdk:cnode1 --rw randrw --rwmix 30 --bs 8k,64k --cores 0-1 --fua --json",
        );
        let [one] = one.unwrap().try_into().unwrap();
        assert_eq!((one.read_percent, one.fua, one.cores), (30, true, vec![0, 1]));
        // As spdk_nvme_perf has them.
        let short = "-q 7 -o 8192 -w randrw -M 30 -t 5 -c 0x2 -P 2 --traddr localhost -r /dev/nvme0n1";
        let [short] = jobs(short).unwrap().try_into().unwrap();
        assert_eq!((short.depth, short.read_sizes, short.mode), (7, SizeSplit::one(8192), Mode::Randrw));
        assert_eq!((short.read_percent, short.time.as_secs(), short.cores, short.lanes), (30, 5, vec![1], 2));
        assert_eq!((one.read_sizes, one.write_sizes), (SizeSplit::one(8192), SizeSplit::one(65_536)));
        let line = "--target /dev/nvme0n1 --target nvme-tcp://[::1]/nqn.2016-06.io.spdk:cnode1 --data-digest \
                    --buffered --distribution zipf:0.9 --rate 1000 --bssplit 4k/60:64k";
        let [file, remote] = jobs(line).unwrap().try_into().unwrap();
        assert_eq!(file.target, Target::File { path: "/dev/nvme0n1".into(), direct: false });
        assert_eq!((file.distribution, file.rate_iops), (Distribution::Zipf(0.9), Some(1000.0)));
        assert_eq!(file.read_sizes, SizeSplit(vec![(4096, 60), (65_536, 40)]));
        let walk = |line: &str| jobs(&format!("--target /a {line}")).unwrap()[0].walk;
        assert_eq!(walk("--rw readwrite:-8k"), Walk { stride: -8192, ..Walk::default() });
        assert_eq!(walk("--rw randread:8 --identical"), Walk { run: 8, again: true, ..Walk::default() });
        let zones = ZoneWalk { size: 65_536, range: 1 << 20, skip: 512 };
        assert_eq!(walk("--rw write --zonesize 64k --zonerange 1m --zoneskip 512").zones, Some(zones));
        assert_eq!(walk("--zonesize 64k").zones, Some(ZoneWalk { range: 65_536, skip: 0, ..zones }));
        let Target::NvmeTcp(remote) = remote.target else { panic!("not remote") };
        assert!(remote.data_digest && !remote.header_digest);
    }

    // Without it a mistake on the command line could start another load than was meant.
    #[test]
    fn contradictions_are_refused() {
        for line in [
            "",
            "--target /a --nqn nqn.2016-06.io.spdk:cnode1",
            "--target /a --bs 4k --bssplit 4k/100",
            "--target /a --bssplit 4k/60:8k/30",
            "--target /a --bssplit 4k/60:8k/50",
            "--target /a --rate 5 --think-time 1",
            "--target /a --distribution normal",
            "--target /a --rw randread:0",
            "--target /a --rw randread:4k",
            "--target /a --rw read:4x",
            "--target /a --rw sequential",
            "--target /a --zonerange 4k",
        ] {
            assert!(jobs(line).is_err(), "{line}");
        }
    }
}
