//! The words of the progress line.

use crate::engine::Phase;
use crate::job::{Job, NO_LIMIT};
use std::time::Duration;

/// Columns that every terminal has. A longer line would wrap and not be removed again.
const WIDTH: usize = 79;

/// What a job needs to tell how far it is.
#[derive(Debug)]
pub struct Share {
    name: String,
    /// Pause, ramp and time measured.
    whole: Duration,
    io_bytes: Option<u64>,
    io_count: Option<u64>,
}

impl Share {
    /// Of a job that is going to run.
    pub fn new(job: &Job) -> Self {
        let whole = job.start_delay + job.ramp + job.time;
        Self { name: job.name.clone(), whole, io_bytes: job.io_bytes, io_count: job.io_count }
    }
}

/// One look at a job.
#[derive(Clone, Debug)]
pub struct Look {
    pub phase: Phase,
    pub ios: u64,
    pub bytes: u64,
    pub errors: u64,
    /// Of the latest second.
    pub p99_ns: Option<u64>,
}

/// The line: rates since the look before, `passed` ago, of a run that began `since` ago.
pub fn line(
    shares: &[Share],
    before: &[Look],
    now: &[Look],
    passed: Duration,
    since: Duration,
    (stage, stages): (usize, usize),
) -> String {
    let seconds = passed.as_secs_f64().max(1e-9);
    let rate = |of: fn(&Look) -> u64, index: usize| {
        let more = now.get(index).map_or(0, of).saturating_sub(before.get(index).map_or(0, of));
        more as f64 / seconds
    };
    let all = |of: fn(&Look) -> u64| (0..now.len()).map(|index| rate(of, index)).sum::<f64>();
    let mut line = if stages > 1 { format!("{stage}/{stages} ") } else { String::new() };
    line += &format!("{:3.0} s", since.as_secs_f64());
    if let Some(done) = done(shares, now, since) {
        line += &format!(" {:3.0} %", done * 100.0);
    }
    line += &format!("  {:.1} kIOPS", all(|look| look.ios) / 1e3);
    line += &format!("  {:.1} MiB/s", all(|look| look.bytes) / f64::from(1 << 20));
    let p99 = now.iter().filter_map(|look| look.p99_ns).max();
    line += &p99.map_or(String::new(), |p99| format!("  p99 {:.0} us", p99 as f64 / 1e3));
    let errors: u64 = now.iter().map(|look| look.errors).sum();
    if errors > 0 {
        line += &format!("  {errors} errors");
    }
    let Some(phase) = now.iter().map(|look| look.phase).min() else { return line };
    line += match phase {
        Phase::Starting => "  starting",
        Phase::Ramp => "  ramp",
        Phase::ReadingBack => "  reading back",
        Phase::Measuring | Phase::Ended => "",
    };
    if now.len() > 1 {
        for (index, share) in shares.iter().enumerate() {
            let part = format!("  {} {:.1}k", share.name, rate(|look| look.ios, index) / 1e3);
            if line.chars().count() + part.chars().count() > WIDTH - 4 {
                line += " ...";
                break;
            }
            line += &part;
        }
    }
    line.chars().take(WIDTH).collect()
}

/// How far the job that takes longest is, of 1: by time, or by bytes or I/Os where these end it sooner. None when one
/// ends by what is not known here, such as the size of its target.
fn done(shares: &[Share], now: &[Look], since: Duration) -> Option<f64> {
    let of = |(share, look): (&Share, &Look)| {
        if look.phase == Phase::Ended {
            return Some(1.0);
        }
        if share.whole >= NO_LIMIT && share.io_bytes.is_none() && share.io_count.is_none() {
            return None;
        }
        let by_time = since.as_secs_f64() / share.whole.as_secs_f64().max(1e-9);
        let by_bytes = share.io_bytes.map_or(0.0, |bytes| look.bytes as f64 / bytes.max(1) as f64);
        let by_ios = share.io_count.map_or(0.0, |ios| look.ios as f64 / ios.max(1) as f64);
        Some(by_time.max(by_bytes).max(by_ios).min(1.0))
    };
    shares.iter().zip(now).map(of).try_fold(1.0, |least, done| Some(f64::min(least, done?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Target;

    fn share(name: &str, seconds: u64, io_bytes: Option<u64>) -> Share {
        let mut job = Job::new(Target::File { path: "/dev/null".into(), direct: false });
        (job.name, job.time, job.io_bytes) = (name.into(), Duration::from_secs(seconds), io_bytes);
        Share::new(&job)
    }

    fn look(phase: Phase, ios: u64) -> Look {
        Look { phase, ios, bytes: ios << 12, errors: 0, p99_ns: Some(85_400) }
    }

    // Without it the line could show rates over the wrong time, or the percentage of the job that ends first.
    #[test]
    fn what_it_says() {
        let two = Duration::from_secs(2);
        let say = |shares: &[Share], before: &[Look], now: &[Look]| {
            line(shares, before, now, two, Duration::from_secs(4), (1, 1))
        };
        let one = [share("a", 10, None)];
        let said = say(&one, &[look(Phase::Measuring, 1000)], &[look(Phase::Measuring, 5000)]);
        assert_eq!(said, "  4 s  40 %  2.0 kIOPS  7.8 MiB/s  p99 85 us");
        let many = [share("a", 10, None), share("b", 1000, Some(1 << 20))];
        let mut now = [look(Phase::Measuring, 5000), look(Phase::Ramp, 64)];
        now[1].errors = 3;
        let said = say(&many, &[look(Phase::Measuring, 1000), look(Phase::Ramp, 0)], &now);
        assert_eq!(said, "  4 s  25 %  2.0 kIOPS  7.9 MiB/s  p99 85 us  3 errors  ramp  a 2.0k ...");
        let said = line(&one, &[], &[look(Phase::Ended, 0)], two, two, (2, 3));
        assert!(said.starts_with("2/3   2 s 100 %"), "{said}");
        assert!(line(&[], &[], &[], two, two, (1, 1)).starts_with("  2 s 100 %"));
        let open = [share("a", NO_LIMIT.as_secs(), None)];
        let said = line(&open, &[], &[look(Phase::Measuring, 0)], two, two, (1, 1));
        assert!(said.starts_with("  2 s  0.0 kIOPS"), "how much there is to do is not known: {said}");
    }

    // Without it a long line would wrap, and leave its first half on the screen each second.
    #[test]
    fn it_never_wraps() {
        let shares: Vec<Share> = (0..20).map(|index| share(&format!("job-{index}"), 10, None)).collect();
        let looks: Vec<Look> = (0..20).map(|index| look(Phase::Measuring, index << 40)).collect();
        let hour = Duration::from_secs(3600);
        for count in 1..20 {
            let line = line(&shares[..count], &[], &looks[..count], Duration::from_secs(1), hour, (10, 10));
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}
