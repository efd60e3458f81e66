//! Options of fio that change which I/O is made, or when it ends, in a way that can't be done here, and why. An option
//! that is in no list is an error, too, without a reason of its own.

/// Names and reasons.
const REFUSED: &[(&str, &str)] = &[
    ("atomic", "there are no atomic writes beyond what the target guarantees"),
    ("bs_unaligned", "I/Os are whole blocks of the target"),
    ("blocksize_unaligned", "I/Os are whole blocks of the target"),
    ("bs_is_seq_rand", "sizes are by direction, not by sequential and random"),
    ("create_only", "files are made for the jobs that use them"),
    ("exec_postrun", "no programs are started"),
    ("exec_prerun", "no programs are started"),
    ("file_append", "files don't grow"),
    ("fill_device", "the end is known: leave it out, and the job goes once through all that there is"),
    ("fill_fs", "files don't grow"),
    ("flow", "jobs don't wait for each other"),
    ("flow_sleep", "jobs don't wait for each other"),
    ("flow_watermark", "jobs don't wait for each other"),
    ("gid", "this process keeps its group"),
    ("ignore_error", "the first error ends the job"),
    ("latency_percentile", "there is no search for a depth that keeps to a latency"),
    ("latency_run", "there is no search for a depth that keeps to a latency"),
    ("latency_target", "there is no search for a depth that keeps to a latency"),
    ("latency_window", "there is no search for a depth that keeps to a latency"),
    ("max_latency", "no latency ends a job; compare takes bounds of percentiles"),
    ("md_per_io_size", "metadata is not transferred"),
    ("merge_blktrace_file", "traces of blktrace are not read"),
    ("rate_iops_min", "a rate is an open loop: whether it was kept up is in the report as backlog"),
    ("rate_min", "a rate is an open loop: whether it was kept up is in the report as backlog"),
    ("ratemin", "a rate is an open loop: whether it was kept up is in the report as backlog"),
    ("sync_file_range", "use fdatasync"),
    ("thinktime_iotime", "each place of a job pauses after each of its I/Os"),
    ("trim_backlog", "use rw=trimwrite, or trims on the command line"),
    ("trim_percentage", "use rw=trimwrite, or trims on the command line"),
    ("trim_verify_zero", "what is deallocated need not read as zeroes"),
    ("uid", "this process keeps its user"),
    ("job_max_open_zones", "there are no zones of drives, only zonemode=strided"),
    ("max_open_zones", "there are no zones of drives, only zonemode=strided"),
    ("read_beyond_wp", "there are no zones of drives, only zonemode=strided"),
    ("wait_for", "jobs follow one another by stonewall"),
    ("zone_reset_frequency", "there are no zones of drives, only zonemode=strided"),
    ("zone_reset_threshold", "there are no zones of drives, only zonemode=strided"),
    ("zonecapacity", "there are no zones of drives, only zonemode=strided"),
];

/// Why an option that is none of those that are known can't be done.
pub fn reason(option: &str) -> String {
    match REFUSED.iter().find(|(name, _)| *name == option) {
        Some((_, reason)) => format!("this can't be done here: {reason}"),
        None => "this option is unknown, or can't be done here".to_owned(),
    }
}
