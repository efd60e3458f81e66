//! Opens NVMe controllers, asks them who they are, and says whether stray DMA is stopped: the least that an environment
//! must be able to do. For the lab; a running controller is reset by this.
//!
//!     identify ADDRESS... [vfio|uio_pci_generic|vfio-noiommu|dpdk] [stray] [watch]
//!
//! `stray` adds a command with an address that was never given out; `watch` waits until the first controller is taken
//! away.

use std::error::Error;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use sledge_nvme::function::{DmaMemory, Function, Presence};
use sledge_nvme::pci::{self, EnvironmentKind, PciAddress};
use sledge_reactor::{Pool, PoolOptions};

/// Register offsets: NVM Express Base Specification 2.0, 3.1.3.
const CAP: usize = 0x00;
const VS: usize = 0x08;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELLS: usize = 0x1000;
/// Entries of both admin queues.
const DEPTH: u16 = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("identify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut addresses: Vec<PciAddress> = Vec::new();
    let mut kind = EnvironmentKind::Vfio;
    let (mut stray, mut watch) = (false, false);
    for word in std::env::args().skip(1) {
        match (word.as_str(), word.parse()) {
            ("stray", _) => stray = true,
            ("watch", _) => watch = true,
            (_, Ok(known)) => kind = known,
            (_, Err(_)) => addresses.push(word.parse()?),
        }
    }
    // All are open at once, so that what they share shows.
    let mut open: Vec<Arc<dyn Function>> = Vec::new();
    for address in &addresses {
        open.push(pci::open(address, kind)?);
    }
    let first = open.first().ok_or("which controller? `sledge setup status` lists them")?.clone();
    for function in &open {
        identify(&**function, stray)?;
    }
    if watch {
        println!("watching");
        wait(Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(10));
            first.presence() != Presence::Present
        })?;
        let (presence, status, queue) = (first.presence(), first.read_u32(CSTS), first.read_u64(ASQ));
        println!("it is {presence:?}; CSTS {status:#x}, ASQ {queue:#x}");
        first.write_u64(ASQ, 0);
        return Ok(());
    }
    // Whoever closes the last one ends the kernel's mappings; a next one must not trust in those.
    drop((first, open));
    for address in &addresses {
        identify(&*pci::open(address, kind)?, false)?;
    }
    Ok(())
}

/// Brings a controller up, asks who it is, and resets it.
fn identify(function: &dyn Function, stray: bool) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let (name, environment) = (function.address(), function.environment());
    println!("open: {name} by {environment}, {} bytes of registers", function.register_bytes());
    let capabilities = function.read_u64(CAP);
    println!("CAP {capabilities:#018x}, VS {:#010x}, {:?}", function.read_u32(VS), function.presence());
    function.set_bus_master(true)?;
    let mut admin = Admin::start(function, capabilities)?;
    let mut data = function.allocate(4096)?;
    data.copy_from(0, &[0xa5; 4096]);
    let status = admin.identify(data.device_address(0))?;
    let text = |offset, length| {
        let mut bytes = vec![0; length];
        data.copy_to(offset, &mut bytes);
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    println!("identify: status {status:#x}, serial {:?}, model {:?}", text(4, 20), text(24, 40));
    if data.read::<u32>(0) == 0xa5a5_a5a5 {
        return Err("the controller's answer did not arrive in memory".into());
    }

    // Memory that was there before, and reaches over several pages.
    let pool = Pool::new(&PoolOptions { total_bytes: 4 << 20 })?;
    let mut buffer = pool.allocate(1 << 20).ok_or("the pool has no buffer")?;
    buffer.fill(0xa5);
    let start = NonNull::from(&mut buffer[8192]);
    // SAFETY: the registration is dropped before the buffer, below.
    let registered = unsafe { function.register(start, 64 << 10) }?;
    let (to, run) = registered.device_address(start.as_ptr().addr()).ok_or("an address of the first byte")?;
    let status = admin.identify(to)?;
    drop(registered);
    let serial = String::from_utf8_lossy(&buffer[8192 + 4..8192 + 24]).trim().to_owned();
    println!("registered: at {to:#x}, {run} bytes in one piece; status {status:#x}, serial {serial:?}");
    if serial != text(4, 20) || buffer[8191] != 0xa5 || buffer[8192 + 4096] != 0xa5 {
        return Err("the controller's answer did not arrive where it should".into());
    }

    if stray {
        // No address that was ever given out.
        let status = admin.identify(0x12_3450_0000)?;
        println!("stray: status {status:#x} as the device tells it");
    }
    function.write_u32(CC, 0);
    println!("reset: {:?}, bus {:?}", function.reset(), function.presence());
    println!("registers after it: CAP {:#018x}, {:.0?} in all", function.read_u64(CAP), started.elapsed());
    Ok(())
}

/// The admin queue, one command at a time.
struct Admin<'a> {
    function: &'a dyn Function,
    submission: DmaMemory,
    completion: DmaMemory,
    /// Bytes from one doorbell to the next.
    stride: usize,
    commands: u16,
}

impl<'a> Admin<'a> {
    fn start(function: &'a dyn Function, capabilities: u64) -> Result<Self, Box<dyn Error>> {
        let patience = Duration::from_millis(500 * (capabilities >> 24 & 0xff).max(1));
        function.write_u32(CC, 0);
        wait(patience, || function.read_u32(CSTS) & 1 == 0)?;
        let (submission, completion) = (function.allocate(4096)?, function.allocate(4096)?);
        function.write_u32(AQA, u32::from(DEPTH - 1) << 16 | u32::from(DEPTH - 1));
        function.write_u64(ASQ, submission.device_address(0));
        function.write_u64(ACQ, completion.device_address(0));
        // Entries of 64 and 16 bytes, enabled.
        function.write_u32(CC, 4 << 20 | 6 << 16 | 1);
        wait(patience, || function.read_u32(CSTS) & 1 == 1)?;
        let stride = 4 << (capabilities >> 32 & 15);
        Ok(Admin { function, submission, completion, stride, commands: 0 })
    }

    /// Identify Controller into 4096 bytes at a device address. Returns the status field.
    fn identify(&mut self, to: u64) -> Result<u16, Box<dyn Error>> {
        let slot = usize::from(self.commands % DEPTH);
        let (entry, answer) = (slot * 64, slot * 16);
        for offset in (0..64).step_by(4) {
            self.submission.write::<u32>(entry + offset, 0);
        }
        self.submission.write(entry, 6 | u32::from(self.commands) << 16);
        self.submission.write(entry + 24, to);
        self.submission.write(entry + 40, 1u32);
        let phase = (self.commands / DEPTH).is_multiple_of(2);
        self.commands += 1;
        self.function.write_u32(DOORBELLS, u32::from(self.commands % DEPTH));
        wait(Duration::from_secs(60), || (self.completion.read::<u16>(answer + 14) & 1 == 1) == phase)?;
        fence(Ordering::Acquire);
        let status = self.completion.read::<u16>(answer + 14) >> 1;
        self.function.write_u32(DOORBELLS + self.stride, u32::from(self.commands % DEPTH));
        Ok(status)
    }
}

fn wait(patience: Duration, mut done: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > patience {
            return Err(format!("the controller does not answer in {patience:?}").into());
        }
        std::hint::spin_loop();
    }
    Ok(())
}
