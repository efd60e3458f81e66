//! What is on the wire for a workload: the PDUs of NVMe/TCP, as numbers of bytes.
//!
//! Invariant: all PDUs of a kind are equally long and begin with the kind, so that a receiver only counts. Everything
//! else in them is zero: nothing is parsed, computed or checked.

use std::io::IoSlice;

/// CapsuleCmd: the common header and the command.
const COMMAND_BYTES: usize = 72;
/// R2T, H2CData, C2HData and CapsuleResp without data.
const SHORT_BYTES: usize = 24;
/// A digest of the header, or of the data.
const DIGEST_BYTES: usize = 4;
/// Headers without data that one slice can hold.
const RUN: usize = 512;

/// Kinds of PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// CapsuleCmd of a read.
    Read = 0,
    /// CapsuleCmd of a write, with its data when that fits.
    Write = 1,
    /// R2T.
    Ready = 2,
    /// H2CData that is not the last one of its command.
    HostPiece = 3,
    /// H2CData that is the last one.
    HostLast = 4,
    /// C2HData of a whole read, with the SUCCESS flag: no response follows.
    Data = 5,
    /// CapsuleResp.
    Response = 6,
}

/// All kinds; a kind's number is its place here.
const KINDS: [Kind; 7] =
    [Kind::Read, Kind::Write, Kind::Ready, Kind::HostPiece, Kind::HostLast, Kind::Data, Kind::Response];

/// A workload, as far as the wire shows it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Data bytes of one I/O.
    pub bytes: usize,
    /// Data of writes up to this travels in the capsule (IOCCSZ).
    pub in_capsule: usize,
    /// Most data of one H2CData (MAXH2CDATA).
    pub host_data: usize,
    /// Whether headers carry digests.
    pub header_digest: bool,
    /// Whether data carries digests.
    pub data_digest: bool,
}

/// One kind's bytes: headers, and how much of the shared data follows each.
#[derive(Debug, Default)]
struct Template {
    /// One header, or as many as one slice holds when no data follows.
    headers: Vec<u8>,
    header: usize,
    body: usize,
}

/// The PDUs of one workload.
#[derive(Debug)]
pub struct Shape {
    templates: [Template; KINDS.len()],
    lengths: [usize; KINDS.len()],
    /// Zeros for PDUs that carry data: as many buffers as there are.
    data: Vec<u8>,
    /// Bytes of one buffer.
    longest: usize,
    buffers: usize,
    /// H2CData PDUs before the last one of a write; none when its data travels in the capsule.
    host_pieces: Option<usize>,
}

impl Shape {
    /// The PDUs of this load, with data from so many buffers in turn.
    pub fn new(load: Load, buffers: usize) -> Self {
        let in_capsule = load.bytes <= load.in_capsule;
        let host_pieces = (load.bytes - 1) / load.host_data;
        let data = |bytes: usize| bytes + if load.data_digest { DIGEST_BYTES } else { 0 };
        let template = |kind: Kind| {
            let (header, body) = match kind {
                Kind::Write if in_capsule => (COMMAND_BYTES, data(load.bytes)),
                Kind::Read | Kind::Write => (COMMAND_BYTES, 0),
                Kind::Ready | Kind::Response => (SHORT_BYTES, 0),
                Kind::HostPiece => (SHORT_BYTES, data(load.host_data)),
                Kind::HostLast => (SHORT_BYTES, data(load.bytes - host_pieces * load.host_data)),
                Kind::Data => (SHORT_BYTES, data(load.bytes)),
            };
            let header = header + if load.header_digest { DIGEST_BYTES } else { 0 };
            let mut headers = vec![0; if body == 0 { header * RUN } else { header }];
            headers.iter_mut().step_by(header).for_each(|first| *first = kind as u8);
            Template { headers, header, body }
        };
        let templates = KINDS.map(template);
        let lengths = std::array::from_fn(|kind| templates[kind].header + templates[kind].body);
        let longest = templates.iter().map(|template| template.body).max().unwrap_or(0);
        // Filled, so that each page is memory of its own and not the system's one page of zeros.
        let mut data = vec![1; longest * buffers];
        data.fill(0);
        let host_pieces = (!in_capsule).then_some(host_pieces);
        Self { templates, lengths, data, longest, buffers, host_pieces }
    }

    /// Bytes of one PDU of this kind.
    pub fn length(&self, kind: Kind) -> usize {
        self.lengths[kind as usize]
    }

    /// How many H2CData PDUs of [`Kind::HostPiece`] come before the last one of a write; none when there is no R2T.
    pub fn host_pieces(&self) -> Option<usize> {
        self.host_pieces
    }

    /// Appends the slices of `count` PDUs of one kind, without the first `skip` bytes of the first of them, until
    /// there are `most` slices. `first` is the number of the first among all PDUs. Returns the bytes that were appended.
    pub fn slices<'a>(
        &'a self,
        kind: Kind,
        (first, count): (usize, usize),
        mut skip: usize,
        slices: &mut Vec<IoSlice<'a>>,
        most: usize,
    ) -> usize {
        let Template { headers, header, body } = &self.templates[kind as usize];
        let mut bytes = 0;
        let mut add = |slice: &'a [u8]| {
            slices.push(IoSlice::new(slice));
            bytes += slice.len();
            slices.len() + 2 <= most
        };
        if *body == 0 {
            let mut left = count;
            let mut room = true;
            while left > 0 && room {
                let run = left.min(RUN);
                room = add(&headers[skip..run * header]);
                left -= run;
                skip = 0;
            }
            return bytes;
        }
        for number in first..first + count {
            if skip < *header {
                add(&headers[skip..]);
                skip = 0;
            } else {
                skip -= header;
            }
            let buffer = &self.data[number % self.buffers * self.longest..];
            if !add(&buffer[skip..*body]) {
                break;
            }
            skip = 0;
        }
        bytes
    }
}

/// Finds the PDUs in a stream of bytes, however it is cut up.
#[derive(Debug, Default)]
pub struct Scanner {
    /// What the current PDU still lacks; zero between two of them.
    left: usize,
    kind: u8,
}

/// A first byte that is no kind: not this program at the other end.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown(pub u8);

impl Scanner {
    /// Calls `ended` for every PDU that is complete with these bytes.
    ///
    /// # Errors
    /// When a PDU starts with something that is not a kind.
    pub fn scan(&mut self, bytes: &[u8], shape: &Shape, mut ended: impl FnMut(Kind)) -> Result<(), Unknown> {
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                self.kind = bytes[at];
                self.left = *shape.lengths.get(usize::from(self.kind)).ok_or(Unknown(self.kind))?;
            }
            let step = self.left.min(bytes.len() - at);
            at += step;
            self.left -= step;
            if self.left == 0 {
                ended(KINDS[usize::from(self.kind)]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LOAD: Load =
        Load { bytes: 4096, in_capsule: 8192, host_data: 131_072, header_digest: false, data_digest: false };

    // Without it the bound could move other bytes than NVMe/TCP does, and every ratio to it be wrong.
    #[test]
    fn lengths_are_those_of_the_protocol() {
        let small = Shape::new(LOAD, 1);
        assert_eq!(small.length(Kind::Read), 72);
        assert_eq!(small.length(Kind::Write), 72 + 4096);
        assert_eq!(small.length(Kind::Data), 24 + 4096);
        assert_eq!(small.length(Kind::Response), 24);
        assert_eq!(small.host_pieces(), None);
        let digests = Shape::new(Load { header_digest: true, data_digest: true, ..LOAD }, 1);
        assert_eq!(digests.length(Kind::Read), 76);
        assert_eq!(digests.length(Kind::Write), 76 + 4100);
        assert_eq!(digests.length(Kind::Data), 28 + 4100);
        let large = Shape::new(Load { bytes: 300_000, ..LOAD }, 1);
        assert_eq!(large.length(Kind::Write), 72);
        assert_eq!(large.length(Kind::Ready), 24);
        assert_eq!(large.host_pieces(), Some(2));
        assert_eq!(large.length(Kind::HostPiece), 24 + 131_072);
        assert_eq!(large.length(Kind::HostLast), 24 + 300_000 - 2 * 131_072);
        assert_eq!(Shape::new(Load { bytes: 131_072, ..LOAD }, 1).host_pieces(), Some(0));
    }

    // Without it what is sent after a partial write could be shifted, or be counted wrong where PDUs are cut.
    #[test]
    fn any_cut_of_the_stream_gives_the_same_pdus() {
        let shape = Shape::new(LOAD, 1);
        for kind in [Kind::Read, Kind::Write, Kind::Data, Kind::Response] {
            let length = shape.length(kind);
            for skip in [0, 1, 71, 72, 73, 4000].into_iter().filter(|skip| *skip < length) {
                let mut slices = Vec::new();
                // The rest of one PDU, then two whole ones.
                let bytes = shape.slices(kind, (0, 3), skip, &mut slices, 1024);
                let flat: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!((bytes, flat.len()), (3 * length - skip, 3 * length - skip));
                for cut in [1, 23, 500, flat.len()] {
                    let mut scanner = Scanner { left: length - skip, kind: kind as u8 };
                    let mut seen = 0;
                    for piece in flat.chunks(cut) {
                        let ended = |found| seen += usize::from(found == kind);
                        scanner.scan(piece, &shape, ended).unwrap();
                    }
                    assert_eq!((seen, scanner.left), (3, 0), "{kind:?} {skip} {cut}");
                }
            }
        }
    }

    // Without it a call could pass more slices than the system takes, or a stream of something else be counted.
    #[test]
    fn slices_are_bounded_and_strangers_refused() {
        let shape = Shape::new(LOAD, 1);
        let mut slices = Vec::new();
        let bytes = shape.slices(Kind::Data, (0, 5000), 0, &mut slices, 1024);
        assert_eq!((slices.len(), bytes), (1024, 512 * 4120));
        slices.clear();
        assert_eq!(shape.slices(Kind::Read, (0, 5000), 5, &mut slices, 1024), 5000 * 72 - 5);
        assert!(slices.len() <= 1024);
        assert_eq!(Scanner::default().scan(&[77], &shape, |_| ()), Err(Unknown(77)));
    }
}
