//! What a job was asked to do, in words: for people, and as options of fio.

use std::time::Duration;

use crate::job::{Arrivals, Distribution, Job, Mode, NO_LIMIT, SizeSplit, Target, ZoneWalk};

/// Whether a mode both reads and writes.
pub fn is_mixed(mode: Mode) -> bool {
    matches!(mode, Mode::Rw | Mode::Randrw)
}

/// Lanes on all cores.
pub fn lanes(job: &Job) -> usize {
    usize::from(job.lanes) * job.cores.len().max(1)
}

/// Bytes as fio and people write them: `4k`, `1m`, `512`.
pub fn size(bytes: u64) -> String {
    let units = [(40, "t"), (30, "g"), (20, "m"), (10, "k")];
    let fits = units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1u64 << shift));
    fits.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A duration in seconds, as short as it can be.
pub fn seconds(time: Duration) -> String {
    format!("{}", time.as_secs_f64())
}

/// A split as fio writes it, but `4k` when there is only one size.
pub fn split(sizes: &SizeSplit) -> String {
    match sizes.0.as_slice() {
        [(bytes, _)] => size(u64::from(*bytes)),
        several => {
            let parts = several.iter().map(|(bytes, share)| format!("{}/{share}", size(u64::from(*bytes))));
            parts.collect::<Vec<_>>().join(":")
        }
    }
}

/// One line that tells people what the job did.
pub fn line(job: &Job) -> String {
    let mut words = match &job.trace {
        Some(trace) => format!("trace {}", trace.rules.path.display()),
        None => format!("{}{} {}", job.mode.name(), job.walk, sizes_for_people(job)),
    };
    if is_mixed(job.mode) && job.trace.is_none() {
        words += &format!(", {} % reads", job.read_percent);
    }
    match job.distribution {
        Distribution::Zipf(theta) if job.mode.is_random() => words += &format!(", zipf {theta}"),
        Distribution::Pareto(h) if job.mode.is_random() => words += &format!(", pareto {h}"),
        Distribution::Zoned(zones) if job.mode.is_random() => words += &format!(", zones {zones}"),
        _ => {}
    }
    if job.walk.again {
        words += ", identical places";
    }
    if let Some(ZoneWalk { size: bytes, range, skip }) = job.walk.zones {
        words += &format!(", {} in each zone of {}, {} apart", size(bytes), size(range), size(skip));
    }
    for (percent, word) in [(job.trim_percent, "trims"), (job.zeroes_percent, "zeroes")] {
        if percent > 0 {
            words += &format!(", {percent} % {word} for writes");
        }
    }
    if job.random_percent < 100 && job.mode.is_random() {
        words += &format!(", {} % at random", job.random_percent);
    }
    if let Some(align) = job.align {
        words += &format!(", aligned to {}", size(u64::from(align)));
    }
    words += &format!(", depth {}", job.depth);
    if job.lanes > 1 {
        words += &format!(", {} lanes a core", job.lanes);
    }
    let cores = job.cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    words += &format!(", core{} {cores}", if job.cores.len() == 1 { "" } else { "s" });
    if let Some(rate) = job.rate_iops {
        let by_chance = if job.arrivals == Arrivals::Poisson { " by chance" } else { "" };
        words += &format!(", {rate} due each second{by_chance}");
    }
    for (set, word) in [(job.busy, "busy"), (job.verify, "verified"), (job.fua, "FUA")] {
        if set {
            words += &format!(", {word}");
        }
    }
    words
}

fn sizes_for_people(job: &Job) -> String {
    match job.mode {
        Mode::Read | Mode::Randread => split(&job.read_sizes),
        Mode::Rw | Mode::Randrw if job.read_sizes != job.write_sizes => {
            format!("{},{}", split(&job.read_sizes), split(&job.write_sizes))
        }
        _ => split(&job.write_sizes),
    }
}

/// The job as options of fio, each as it would stand in a job file.
pub fn fio_options(job: &Job) -> Vec<(&'static str, String)> {
    let mut options = vec![
        ("name", job.name.clone()),
        ("filename", job.target.to_string()),
        ("ioengine", "sledge".into()),
        ("rw", format!("{}{}", job.mode.name(), job.walk)),
        ("iodepth", job.depth.to_string()),
        ("numjobs", lanes(job).to_string()),
        ("randseed", job.seed.to_string()),
    ];
    if let Target::File { direct, .. } = &job.target {
        options.push(("direct", u8::from(*direct).to_string()));
    }
    let mut put = |set: bool, name, value: String| {
        if set {
            options.push((name, value));
        }
    };
    let is_split = job.read_sizes.0.len() > 1 || job.write_sizes.0.len() > 1;
    let (reads, writes) = (split(&job.read_sizes), split(&job.write_sizes));
    let both = if reads == writes { reads } else { format!("{reads},{writes}") };
    put(true, if is_split { "bssplit" } else { "bs" }, both);
    if let Some(trace) = &job.trace {
        put(true, "read_iolog", trace.rules.path.display().to_string());
        put(trace.rules.no_stall, "replay_no_stall", "1".into());
    }
    if let Some(path) = &job.record {
        put(true, "write_iolog", path.display().to_string());
    }
    put(job.walk.again, "rw_sequencer", "identical".into());
    if let Some(zones) = job.walk.zones {
        put(true, "zonemode", "strided".into());
        put(true, "zonesize", size(zones.size));
        put(true, "zonerange", size(zones.range));
        put(true, "zoneskip", size(zones.skip));
    }
    put(is_mixed(job.mode), "rwmixread", job.read_percent.to_string());
    match job.distribution {
        Distribution::Uniform => {}
        Distribution::Zipf(theta) => put(true, "random_distribution", format!("zipf:{theta}")),
        Distribution::Pareto(h) => put(true, "random_distribution", format!("pareto:{h}")),
        Distribution::Zoned(zones) => put(true, "random_distribution", format!("zoned:{zones}")),
    }
    put(job.time < NO_LIMIT, "runtime", seconds(job.time));
    put(job.offset > 0, "offset", size(job.offset));
    put(job.size.is_some(), "size", size(job.size.unwrap_or(0)));
    match job.io_bytes {
        Some(bytes) => put(true, "io_size", size(bytes)),
        None => put(true, "time_based", "1".into()),
    }
    put(job.io_count.is_some(), "number_ios", job.io_count.unwrap_or(0).to_string());
    put(job.random_percent < 100, "percentage_random", job.random_percent.to_string());
    put(job.align.is_some(), "blockalign", size(u64::from(job.align.unwrap_or(0))));
    put(job.ends_all, "exitall", "1".into());
    if let Some(steady) = &job.steady {
        put(true, "steadystate", steady.name());
        put(true, "steadystate_duration", seconds(steady.window));
        put(true, "steadystate_ramp_time", seconds(steady.after));
    }
    let percentiles = job.percentiles.iter().map(f64::to_string).collect::<Vec<_>>().join(":");
    put(!job.percentiles.is_empty(), "percentile_list", percentiles);
    put(job.verify && job.writes() && !job.read_back, "do_verify", "0".into());
    put(!job.start_delay.is_zero(), "startdelay", seconds(job.start_delay));
    put(!job.ramp.is_zero(), "ramp_time", seconds(job.ramp));
    put(job.rate_iops.is_some(), "rate_iops", job.rate_iops.unwrap_or(0.0).to_string());
    put(job.arrivals == Arrivals::Poisson, "rate_process", "poisson".into());
    put(!job.think_time.is_zero(), "thinktime", job.think_time.as_micros().to_string());
    put(job.fua, "sync", "1".into());
    put(job.flush_every.is_some(), "fdatasync", job.flush_every.unwrap_or(0).to_string());
    put(job.verify, "verify", "crc32c".into());
    options
}
