//! Job files and what they ask for.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Defaults, JobFile, lay_out, read};
use crate::job::{Distribution, Job, Mode, SizeSplit, Target, Walk, ZoneWalk, Zones};

const URL: &str = "nvme-tcp://127.0.0.1:4420/nqn.2016-06.io.spdk:cnode1?nsid=1";

fn defaults() -> Defaults {
    Defaults { target: None, cores: vec![4, 5], busy: false, seed: 7 }
}

/// A folder with one job file.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("job.fio", text);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self) -> Result<JobFile, String> {
        read(&self.path("job.fio"), &defaults()).map_err(|error| error.to_string())
    }
}

fn parse(text: &str) -> JobFile {
    Folder::new(text).read().unwrap()
}

/// The only job of a file whose target is given.
fn job(options: &str) -> Job {
    let file = parse(&format!("[job]\nfilename={URL}\nsize=1m\n{options}\n"));
    file.stages[0].jobs[0].clone()
}

/// The message without the folder.
fn error(text: &str) -> String {
    let folder = Folder::new(text);
    let place = format!("{}/", folder.0.path().display());
    folder.read().unwrap_err().replace(&place, "")
}

// Without it sections, inheritance or comments could be read otherwise than fio does.
#[test]
fn globals_are_handed_down_from_where_they_stand() {
    let file = parse(&format!(
        "; a comment\n[global]\nfilename={URL} # not part of it\nsize = 8m ; nor this\nbs=4k\n\n[first]\nrw=randread\n\
         [global]\nbs=8k\niodepth=16\n[second job]\nrw=write\nbs=16k\n[third]\nname=other\n"
    ));
    let jobs = &file.stages[0].jobs;
    let of = |job: &Job| (job.name.clone(), job.mode, job.read_sizes.0[0].0, job.depth, job.size);
    assert_eq!(of(&jobs[0]), ("first".into(), Mode::Randread, 4096, 1, Some(8 << 20)));
    assert_eq!(of(&jobs[1]), ("second job".into(), Mode::Write, 16384, 16, Some(8 << 20)));
    assert_eq!(of(&jobs[2]), ("other".into(), Mode::Read, 8192, 16, Some(8 << 20)));
    assert_eq!(jobs[0].target.to_string(), URL);
    assert_eq!((file.stages.len(), file.warnings.len()), (1, 0));
}

// Without it an option could land in the wrong field, or in the wrong unit.
#[test]
fn options_mean_what_they_mean_in_fio() {
    let given = job(
        "rw=randrw\nrwmixwrite=30\nbs=4k,16k\niodepth=0x20\nioengine=io_uring\ndirect=1\noffset=1g\n\
                     runtime=2m\ntime_based\nramp_time=500ms\nstartdelay=3\nthinktime=10\nfdatasync=8\nsync=dsync\n\
                     verify=md5\nrandseed=99\ncpus_allowed=3\nrandom_distribution=zipf:1.3\nio_size=4m",
    );
    assert_eq!((given.mode, given.read_percent, given.depth), (Mode::Randrw, 70, 32));
    assert_eq!(given.read_sizes, SizeSplit(vec![(4096, 100)]));
    assert_eq!(given.write_sizes, SizeSplit(vec![(16384, 100)]));
    assert_eq!((given.offset, given.time, given.io_bytes), (1 << 30, Duration::from_secs(120), None));
    assert_eq!((given.ramp, given.start_delay), (Duration::from_millis(500), Duration::from_secs(3)));
    assert_eq!((given.think_time, given.flush_every, given.fua), (Duration::from_micros(10), Some(8), true));
    assert_eq!((given.verify, given.seed, given.cores.as_slice()), (true, 99, [3].as_slice()));
    assert_eq!(given.distribution, Distribution::Zipf(1.3));
    let plain = job("");
    assert_eq!(
        (plain.mode, plain.depth, plain.seed, plain.verify, plain.fua),
        (Mode::Read, 1, 7, false, false)
    );
    assert_eq!((plain.io_bytes, plain.time > Duration::from_secs(86_400)), (Some(1 << 20), true));
    assert_eq!(job("runtime=5\nloops=3").io_bytes, Some(3 << 20));
    let counted = job("bs=8k\nnumber_ios=5");
    assert_eq!((counted.io_count, counted.io_bytes), (Some(5), Some(1 << 20)));
    assert_eq!(job("io_size=64k\nruntime=1h").io_bytes, Some(65_536));
    let ends = |options: &str| (job(options).io_bytes, job(options).passes);
    assert_eq!(ends("size=100%\nloops=2"), (None, Some(2)));
    assert_eq!(ends("size=100%\ntime_based\nruntime=1"), (None, None));
    assert_eq!(ends("size=100%\nnumber_ios=3"), (None, Some(1)));
    assert_eq!(job("rw=trim\nbs=4k,8k,64k").write_sizes, SizeSplit(vec![(65_536, 100)]));
    assert_eq!(job("bs=,64k").read_sizes, SizeSplit(vec![(4096, 100)]));
    assert_eq!(job("rw=randwrite\nrandom_distribution=pareto:0.3").distribution, Distribution::Pareto(0.3));
}

// Without it holes, runs and zones could be read as something else.
#[test]
fn walks_are_those_of_fio() {
    let walk = |options: &str| job(options).walk;
    assert_eq!(walk("rw=write:8k"), Walk { stride: 8192, ..Walk::default() });
    assert_eq!(walk("rw=readwrite:-4KiB"), Walk { stride: -4000, ..Walk::default() });
    assert_eq!(
        walk("rw=randrw:16\nrw_sequencer=identical"),
        Walk { run: 16, again: true, ..Walk::default() }
    );
    let zones = ZoneWalk { size: 65_536, range: 1 << 20, skip: 4096 };
    assert_eq!(walk("zonemode=strided\nzonesize=64k\nzonerange=1m\nzoneskip=4k").zones, Some(zones));
    assert_eq!(
        walk("zonemode=strided\nzonesize=64k").zones,
        Some(ZoneWalk { range: 65_536, skip: 0, ..zones })
    );
    assert_eq!(walk("zonemode=none\nzoneskip=4k"), Walk::default());
}

// Without it a size could be another one than fio takes it for: it reads KiB as powers of 1000 unless told otherwise.
#[test]
fn units_are_those_of_fio() {
    let size = |options: &str| job(options).offset;
    for (text, usual, standard) in [
        ("4k", 4096, 4000),
        ("4kb", 4096, 4000),
        ("4ki", 4096, 4000),
        ("4KiB", 4000, 4096),
        ("2M", 2 << 20, 2_000_000),
        ("3gib", 3_000_000_000, 3 << 30),
        ("7b", 7, 7),
    ] {
        assert_eq!(size(&format!("offset={text}")), usual, "{text}");
        assert_eq!(size(&format!("offset={text}\nkb_base=1000")), standard, "{text}");
    }
    assert_eq!(job("bs=256KiB\nkb_base=1000").read_sizes, SizeSplit(vec![(262_144, 100)]));
}

// Without it what an earlier job wrote could be left unchecked, or be written over by a job that shall only check it.
#[test]
fn jobs_check_what_others_wrote() {
    let writes = job("rw=randwrite\nverify=crc32c\ndo_verify=0\nverify_state_save=1");
    assert_eq!((writes.verify, writes.read_back, writes.writes()), (true, false, true));
    assert_eq!(writes.verify_state.unwrap(), Path::new("local-job-0-verify.state"));
    let reads = job("rw=randread\nverify=crc32c\nverify_state_load");
    assert_eq!((reads.mode, reads.verify, reads.verify_state.is_some()), (Mode::Randread, true, true));
    let only = job("rw=randwrite\nbs=8k\nverify=md5\nverify_only\ntime_based\nruntime=5\nrate_iops=10");
    assert_eq!((only.mode, only.modifies(), only.passes, only.rate_iops), (Mode::Read, false, Some(1), None));
    assert_eq!((only.read_sizes, only.verify_state), (SizeSplit::one(8192), None));
}

// Without it options of which job files in the wild make use could be passed over, or land in the wrong field.
#[test]
fn less_common_options() {
    let given = job(
        "rw=randread\npercentage_random=20\nba=512\nsteadystate=iops_slope:0.3%\nss_dur=5\nss_ramp=2\nexitall\n\
         percentile_list=99.9:50\noffset=10%\nrw_sequencer=identical\nkb_base=1024",
    );
    assert_eq!((given.random_percent, given.align, given.ends_all), (20, Some(512), true));
    assert_eq!((given.percentiles, given.percentages), (vec![50.0, 99.9], (10, None)));
    let steady = given.steady.unwrap();
    assert_eq!((steady.name().as_str(), steady.window.as_secs()), ("iops_slope:0.3%", 5));
    assert_eq!(steady.after.as_secs(), 2);
    assert_eq!(job("ss=bw:1").steady, None, "without a window fio looks for nothing");
    let zoned = job("rw=randwrite\nrandom_distribution=zoned:50/5:30/15:20/80").distribution;
    assert_eq!(zoned, Distribution::Zoned(Zones::parse("50/5:30/15:20/80").unwrap()));
    assert_eq!(job("rw=randtrimwrite").mode, Mode::Randtrimwrite);
    let file = parse(&format!("[a]\nfilename={URL}\nsize=20%\noffset_increment=25%\nnumjobs=3"));
    let parts: Vec<_> = file.stages[0].jobs.iter().map(|job| (job.percentages, job.passes)).collect();
    assert_eq!(parts, [((0, Some(20)), Some(1)), ((25, Some(20)), Some(1)), ((50, Some(20)), Some(1))]);
    for (name, target) in [
        ("pcie://0000:00:04.0", "pcie://0000:00:04.0?nsid=1"),
        ("trtype=PCIe traddr=0000.00.04.0 ns=2", "pcie://0000:00:04.0?nsid=2"),
        (
            "trtype=TCP adrfam=IPv4 traddr=10.0.0.1 trsvcid=4420 subnqn=nqn.2016-06.io.spdk\\:c ns=1",
            "nvme-tcp://10.0.0.1:4420/nqn.2016-06.io.spdk:c?nsid=1",
        ),
    ] {
        let file = parse(&format!("[a]\nioengine=spdk\nthread\nsize=1m\nfilename={name}"));
        assert_eq!(file.stages[0].jobs[0].target.to_string(), target);
    }
}

// Without it a mix of sizes could have other shares than asked for, or not add up.
#[test]
fn size_splits() {
    for (option, sizes) in [
        ("bssplit=4k/10:64k/50:32k/40", vec![(4096, 10), (65_536, 50), (32_768, 40)]),
        ("bssplit=4k/50:8k:16k", vec![(4096, 50), (8192, 25), (16_384, 25)]),
        ("bssplit=512:1k:2k", vec![(512, 34), (1024, 33), (2048, 33)]),
        ("bssplit=4k/100:8k/0", vec![(4096, 100)]),
        ("bsrange=4k-4k", vec![(4096, 100)]),
        ("blocksize_range=4k-12k", vec![(4096, 34), (8192, 33), (12_288, 33)]),
    ] {
        assert_eq!(job(option).read_sizes, SizeSplit(sizes), "{option}");
    }
    let given = job("rw=randrw\nbssplit=4k/50:8k/50,16k/100");
    assert_eq!(given.read_sizes.0.len(), 2);
    assert_eq!(given.write_sizes, SizeSplit(vec![(16_384, 100)]));
}

// Without it a rate for reads and writes could be exceeded by one of them.
#[test]
fn rates_are_those_of_both_directions() {
    for (option, rate) in [
        ("rate_iops=1000", (Some(1000.0), 100)),
        ("rate=1m", (Some(256.0), 100)),
        ("rw=write\nrate_iops=5,700", (Some(700.0), 0)),
        ("rw=trim\nbs=8k\nrate=1,1,1m", (Some(128.0), 0)),
        ("rw=randrw\nrwmixread=75\nrate_iops=300,900", (Some(1200.0), 25)),
        ("rw=randrw\nrwmixread=75\nrate_iops=1000", (Some(2000.0), 50)),
        ("rw=randrw\nrate=1m,2m\nrate_iops=100", (Some(200.0), 50)),
        ("rw=randrw\nrwmixread=75", (None, 75)),
        ("rw=write\nrate_iops=500,", (None, 0)),
    ] {
        let job = job(option);
        assert_eq!((job.rate_iops, job.read_percent), rate, "{option}");
    }
}

// Without it jobs that must follow one another could run at once, or copies be reported apart.
#[test]
fn stages_copies_and_groups() {
    let file = parse(&format!(
        "[global]\nfilename={URL}\nsize=1m\nnumjobs=3\noffset_increment=1m\n\
         [a]\ngroup_reporting\n[b]\ngroup_reporting\n[c]\n[d]\ngroup_reporting\nnew_group\nnumjobs=2\n\
         [e]\nstonewall\nnumjobs=1\n[f]\nwait_for_previous\ncpus_allowed=0-1\n"
    ));
    let lengths: Vec<usize> = file.stages.iter().map(|stage| stage.jobs.len()).collect();
    assert_eq!(lengths, [11, 1, 3]);
    assert_eq!(file.stages[0].report_as, [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 4]);
    assert_eq!((&file.stages[1].report_as, &file.stages[2].report_as), (&vec![0], &vec![0, 1, 2]));
    let first = &file.stages[0].jobs;
    assert_eq!([first[0].offset, first[1].offset, first[2].offset], [0, 1 << 20, 2 << 20]);
    assert_eq!([first[0].cores[0], first[1].cores[0], first[2].cores[0]], [4, 5, 4]);
    assert_eq!(file.stages[2].jobs.iter().map(|job| job.cores[0]).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(first[0].seed != first[1].seed);
}

// Without it a run could go to another file than fio's, or miss the target that the command line names.
#[test]
fn targets() {
    let path = |text: &str| match &parse(text).stages[0].jobs[0].target {
        Target::File { path, direct } => (path.to_str().unwrap().to_owned(), *direct),
        other => panic!("{other}"),
    };
    assert_eq!(path("[a/b]\nsize=4k\ndirectory=/data"), ("/data/a.b.0.0".into(), false));
    assert_eq!(path("[a]\nsize=4k\ndirectory=/data\nfilename=x\ndirect=1"), ("/data/x".into(), true));
    assert_eq!(path("[a]\nsize=4k\nfilename=/dev/pci\\:1\nbuffered=0"), ("/dev/pci:1".into(), true));
    assert_eq!(path("[a]\nsize=4k\nfilename_format=$jobname.$filenum"), ("a.0".into(), false));
    let folder = Folder::new("[a]\nsize=4k\nfilename=/dev/sda");
    let given = Defaults { target: Some(URL.parse().unwrap()), ..defaults() };
    let file = read(&folder.path("job.fio"), &given).unwrap();
    assert_eq!(file.stages[0].jobs[0].target.to_string(), URL);
}

// Without it reads of a new file would find a hole, which costs a disk nothing.
#[test]
fn files_are_laid_out() {
    let folder = Folder::new("");
    let data = folder.path("data");
    std::fs::write(&data, vec![0; 12_288]).unwrap();
    folder.write("job.fio", &format!("[a]\nfilename={}\noffset=4k", data.display()));
    let file = folder.read().unwrap();
    let mut job = file.stages[0].jobs[0].clone();
    assert_eq!((job.size, job.io_bytes, job.passes), (None, None, Some(1)));
    assert_eq!(lay_out(&job), Ok(None));
    job.size = Some(3 << 20);
    assert!(lay_out(&job).unwrap().unwrap().contains("wrote bytes 12288 to 3149824"));
    let bytes = std::fs::read(&data).unwrap();
    assert_eq!(bytes.len(), (3 << 20) + 4096);
    assert!(bytes[..12_288].iter().all(|byte| *byte == 0), "what was there stays");
    assert!(bytes[12_288..].chunks(64).all(|part| part.iter().any(|byte| *byte != 0)), "no holes");
    job.target = Target::File { path: "/dev/sledge-nobody".into(), direct: true };
    assert!(lay_out(&job).is_err(), "nothing is made below /dev");
}

// Without it a job file that relies on other files or on its environment would be read without them.
#[test]
fn includes_and_variables() {
    let folder = Folder::new("[global]\ninclude more.inc\nnumjobs=$ncpus\n[a]\nname=${CARGO_PKG_NAME}-x\n");
    folder.write("more.inc", &format!("filename={URL}\nsize=1m\n"));
    let file = folder.read().unwrap();
    assert_eq!(file.stages[0].jobs[0].name, "sledge-perf-x");
    assert_eq!(file.stages[0].jobs[0].target.to_string(), URL);
    folder.write("more.inc", "include more.inc\n");
    assert!(folder.read().unwrap_err().contains("more.inc:1: too many files include one another"));
    assert!(error("[a]\nname=${SLEDGE_NO_SUCH_VARIABLE}").contains("no variable SLEDGE_NO_SUCH_VARIABLE"));
}

// Without it a job file could run as something that it does not say.
#[test]
fn what_cannot_be_done_names_file_line_and_option() {
    for (text, message) in [
        ("[a]\nrw=read\nblock_size=4k", "job.fio:3: block_size: this option is unknown"),
        ("[a]\nno_such_option", "job.fio:2: no_such_option: this option is unknown"),
        ("[a]\nrw=randread:8k", "job.fio:2: rw: \"8k\" is not a number of I/Os for each random place"),
        ("[a]\nrw=read:x", "job.fio:2: rw: \"x\" is not a number of bytes between I/Os"),
        ("[a]\nzonemode=zbd", "job.fio:2: zonemode: \"zbd\" can't be done here, only none and strided"),
        ("[a]\nsize=4k\nfilename=x\nzonesize=4k", "a zonesize needs zonemode=strided"),
        ("[a]\nsize=4k\nfilename=x\nzonemode=strided", "zonemode=strided needs a zonesize"),
        ("[a]\nbs=4x", "job.fio:2: bs: \"4x\" is not a whole number"),
        ("[a]\nbs=0", "job.fio:2: bs: must not be 0"),
        ("[a]\nbs", "job.fio:2: bs: a value is missing"),
        ("[a]\niodepth=70000", "job.fio:2: iodepth: 70000 is too large"),
        ("[a]\nioengine=null", "job.fio:2: ioengine: \"null\" can't be done here"),
        ("[a]\nbssplit=4k/90:8k/20", "job.fio:2: bssplit: the shares"),
        ("[a]\nbssplit=4k/90", "job.fio:2: bssplit: the shares"),
        ("[a]\nbsrange=512-1m", "job.fio:2: bsrange: more than a hundred sizes"),
        ("[a]\nrandom_distribution=zoned:50/5", "job.fio:2: random_distribution: the shares of \"50/5\""),
        ("[a]\nrandom_distribution=normal:5", "job.fio:2: random_distribution: \"normal:5\" is none of"),
        ("[a]\nrandom_distribution=zipf:1", "theta of 1"),
        ("[a]\nsize=150%", "job.fio:2: size: \"150%\" is not a percentage"),
        ("[a]\nsize=0%", "job.fio:2: size: must not be 0"),
        ("[a]\nsize=10%\nfilename=x\nnumjobs=12\noffset_increment=10%", "its offset is beyond the end"),
        ("[a]\nexec_prerun=rm", "job.fio:2: exec_prerun: this can't be done here: no programs are started"),
        ("[a]\nsteadystate=iops:0%", "job.fio:2: steadystate: \"iops:0%\": \"0\" is not a limit"),
        ("[a]\nsteadystate=lat:1%", "job.fio:2: steadystate: \"lat:1%\" is none of iops:LIMIT"),
        ("[a]\npercentile_list=50:101", "job.fio:2: percentile_list: \"101\" is not a percentile"),
        ("[a]\nsize=4k\nfilename=x\nrw=randrw\nba=4k,8k", "blockalign of reads and of writes can't differ"),
        ("[a]\nsize=4k\nfilename=x\nverify_only", "verify_only needs verify"),
        ("[a]\nsize=4k\nfilename=x\nrw=write\nverify=md5\nverify_state_load=1", "for a job that only reads"),
        ("[a]\nsize=4k\nfilename=trtype=TCP traddr=1.2.3.4", "there is no subnqn"),
        ("[a]\nnrfiles=4", "job.fio:2: nrfiles: \"4\" can't be done here"),
        ("[a]\nkb_base=512", "job.fio:2: kb_base: \"512\" is neither 1024 nor 1000"),
        ("[a]\nruntime=soon", "job.fio:2: runtime: \"soon\" is not a time"),
        ("[a]\ncpus_allowed=3-1", "job.fio:2: cpus_allowed"),
        ("[a]\ntime_based\nsize=1m", "job.fio:1: job \"a\": time_based needs a runtime"),
        ("[a]\nsize=4k\nfilename=/tmp/a:/tmp/b", "job.fio:1: job \"a\": \"/tmp/a:/tmp/b\" is a list"),
        ("[a]\nsize=4k\nfilename=x\nrw=rw\nrate_iops=5,", "a rate for reads or writes alone"),
        ("[a]\nsize=4k\nfilename=x\nrw=rw\nrate_iops=1,1000", "too far apart"),
        ("[a]\nsize=4k\nrate_iops=5\nthinktime=5", "a rate and thinktime don't go together"),
        ("[a]\nsize=4k\nfilename=x\nrw=write\nverify=md5\nnumjobs=2", "need an offset_increment"),
        ("[a]\nfilename=nvme-tcp://x/y\nsize=4k", "job \"a\": \"x\" is not ADDRESS"),
        ("rw=read", "job.fio:1: an option outside of any section"),
        ("[a\nrw=read", "job.fio:1: no ] at the end"),
        ("[global]\nrw=read", "job.fio: there is no job in it"),
        ("", "job.fio: there is no job in it"),
    ] {
        let said = error(text);
        assert!(said.contains(message), "{text:?}: {said}");
        assert_eq!(said.lines().count(), 1);
    }
    let missing = read(Path::new("/nobody/job.fio"), &defaults()).unwrap_err().to_string();
    assert!(missing.starts_with("/nobody/job.fio: "), "{missing}");
}

// Without it people would not learn what of their file is passed over, or be told on many lines.
#[test]
fn what_is_passed_over_is_named_once() {
    let file = parse(&format!(
        "[global]\nfilename={URL}\nthread\nnorandommap\nwrite_lat_log=x\n[a]\nioengine=psync\niodepth=8\nsize=1m\n\
         [b]\nruntime=1\nnumjobs=2\n"
    ));
    assert_eq!(file.stages[0].jobs[0].depth, 1);
    let [ignored, depth] = file.warnings.as_slice() else { panic!("{:?}", file.warnings) };
    assert!(ignored.ends_with("job.fio: options without a meaning here: norandommap, thread, write_lat_log"));
    assert!(depth.ends_with("job.fio:6: job \"a\": its ioengine has one I/O outstanding, so iodepth=8 is 1"));
}

// Without it the list in the documentation could part from what is accepted.
#[test]
fn options_without_meaning_are_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sledge-perf.md");
    let document = std::fs::read_to_string(document).unwrap();
    for option in super::ignored::IGNORED {
        assert!(document.contains(&format!("`{option}`")), "{option} is not in docs/sledge-perf.md");
    }
    assert!(super::ignored::IGNORED.is_sorted());
}
