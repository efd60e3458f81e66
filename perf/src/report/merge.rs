//! Several jobs reported as one: `group_reporting` of fio job files.

use std::time::Duration;

use super::options;
use crate::results::{Direction, JobResults, Results, Second};
use crate::workload::DIRECTIONS;

/// Replaces jobs by their sums: job `i` goes into entry `into[i]` of the new list, under the name and options of the
/// first that goes there. Jobs without an entry stay out.
///
/// Latencies of the whole run are exact. Of a second, the median becomes the mean of the jobs' medians, each weighed
/// with its I/Os, and the 99th percentile the largest of the jobs'.
pub fn merge_jobs(results: &mut Results, into: &[usize]) {
    let count = into.iter().max().map_or(0, |last| last + 1);
    let mut merged: Vec<Option<JobResults>> = (0..count).map(|_| None).collect();
    for (job, entry) in results.jobs.drain(..).zip(into) {
        match &mut merged[*entry] {
            Some(sum) => add(sum, job),
            empty => *empty = Some(job),
        }
    }
    results.jobs = merged.into_iter().flatten().collect();
}

fn add(sum: &mut JobResults, job: JobResults) {
    add_direction(&mut sum.reads, &job.reads);
    add_direction(&mut sum.writes, &job.writes);
    add_direction(&mut sum.trims, &job.trims);
    add_direction(&mut sum.zeroes, &job.zeroes);
    add_direction(&mut sum.flushes, &job.flushes);
    sum.backlog += job.backlog;
    sum.elapsed = sum.elapsed.max(job.elapsed);
    sum.errors += job.errors;
    sum.verified += job.verified;
    // Of jobs that end together, steady only if all are.
    sum.steady = match (sum.steady, job.steady) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    };
    sum.first_error = sum.first_error.take().or(job.first_error);
    let lanes = options::lanes(&sum.job) + options::lanes(&job.job);
    for core in job.job.cores {
        if !sum.job.cores.contains(&core) {
            sum.job.cores.push(core);
        }
    }
    // At most what two jobs have: it fits.
    sum.job.lanes = u16::try_from(lanes.div_ceil(sum.job.cores.len().max(1))).unwrap_or(u16::MAX);
    for (index, second) in job.seconds.into_iter().enumerate() {
        match sum.seconds.get_mut(index) {
            Some(there) => add_second(there, &second),
            None => sum.seconds.push(second),
        }
    }
}

fn add_direction(sum: &mut Direction, more: &Direction) {
    sum.latencies.merge(&more.latencies);
    sum.bytes += more.bytes;
}

fn add_second(sum: &mut Second, more: &Second) {
    let (before, now): (u64, u64) = (sum.ios.iter().sum(), more.ios.iter().sum());
    let weighed = u128::from(sum.p50_ns) * u128::from(before) + u128::from(more.p50_ns) * u128::from(now);
    // A mean of two u64 is one again.
    sum.p50_ns = (weighed / u128::from((before + now).max(1))) as u64;
    sum.p99_ns = sum.p99_ns.max(more.p99_ns);
    sum.length = Duration::max(sum.length, more.length);
    for index in 0..DIRECTIONS {
        sum.ios[index] += more.ios[index];
        sum.bytes[index] += more.bytes[index];
    }
}
