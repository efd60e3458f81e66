//! Opening one queue: TCP, ICReq and ICResp, Fabrics Connect.

use super::error::{HostError, Loss};
use super::options::ConnectOptions;
use super::payload::Payload;
use super::queue::{Order, Queue, QueueOptions, QueueState};
use super::slot::Direction;
use super::wait::within;
use sledge_nvme::fabrics::{
    ConnectAttributes, ConnectCommand, ConnectData, ConnectResponse, InvalidParameter,
};
use sledge_nvme::{Command, Completion, Status};
use sledge_reactor::net::TcpStream;
use zerocopy::IntoBytes;

/// Data that any controller takes in the capsules of its admin queue (NVMe/TCP, "Capsules"), and of every Connect.
pub(super) const ADMIN_IN_CAPSULE_BYTES: u32 = 8192;

/// Which queue to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// Queue identifier; 0 is the admin queue.
    pub(super) qid: u16,
    /// Controller identifier.
    pub(super) cntlid: u16,
    /// Most commands outstanding.
    pub(super) depth: u16,
    /// Data that capsules take once the queue is open.
    pub(super) in_capsule_bytes: u32,
}

/// Opens a queue. Returns it ready for commands, and what the controller answered.
///
/// # Errors
/// Whatever keeps the queue from opening.
pub(super) async fn open_queue(
    options: &ConnectOptions,
    opening: Opening,
) -> Result<(Queue<TcpStream>, ConnectResponse), HostError> {
    let address = options.address;
    let stream = within("the TCP connection", options.connect_timeout, TcpStream::connect(address))
        .await?
        .map_err(|source| HostError::Connect { address, source })?;
    let queue_options = QueueOptions {
        depth: usize::from(opening.depth),
        header_digest: options.header_digest,
        data_digest: options.data_digest,
        data_alignment: options.data_alignment,
    };
    let mut queue = Queue::new(stream, queue_options, ADMIN_IN_CAPSULE_BYTES);
    let keep_alive = if opening.qid == 0 { options.keep_alive.as_millis() as u32 } else { 0 };
    // A queue counts as full with one entry free.
    // Slots alone bound what is outstanding, so SQHD is of no use, and without it a successful read needs no
    // CapsuleResp: C2HData carries the SUCCESS flag. A controller may decline.
    let attributes = ConnectAttributes::default().with_disable_flow_control(true);
    let command = ConnectCommand::new(opening.qid, u32::from(opening.depth) + 1, keep_alive)
        .with_attributes(attributes);
    let data = ConnectData::new(options.host.id, opening.cntlid, &options.subsystem, &options.host.nqn);
    let order =
        Order { token: 0, command: Command::from(command), direction: Direction::Out, unhurried: false };
    if queue.submit(&order, || Payload::Owned(data.as_bytes().to_vec())).is_none() {
        return Err(HostError::QueueFull);
    }
    let what = if opening.qid == 0 { "connecting the admin queue" } else { "connecting an I/O queue" };
    let completion = within(what, options.connect_timeout, answer(&mut queue)).await??;
    let status = completion.status();
    if !status.is_success() {
        let field = status
            .is(Status::CONNECT_INVALID_PARAMETERS)
            .then(|| InvalidParameter::from_result(completion.result.get()).offset);
        return Err(HostError::Refused { subsystem: options.subsystem.to_string(), status, field });
    }
    let response = ConnectResponse::from_bits(completion.result.get());
    if response.authentication_required() {
        return Err(HostError::Unsupported("authentication"));
    }
    if response.secure_channel_required() {
        return Err(HostError::Unsupported("a secure channel"));
    }
    queue.connected(opening.in_capsule_bytes);
    Ok((queue, response))
}

/// Drives a queue by itself until its only command has ended.
async fn answer(queue: &mut Queue<TcpStream>) -> Result<Completion, HostError> {
    loop {
        queue.turn();
        let mut answer = None;
        queue.collect(|_, completion, _| answer = Some(completion));
        if let Some(completion) = answer {
            return Ok(completion);
        }
        if queue.state == QueueState::Closed {
            return Err(queue.loss().cloned().unwrap_or(Loss::EndOfStream).into());
        }
        if queue.write_blocked {
            queue.link.writable().await;
        } else {
            queue.link.readable().await;
        }
    }
}
