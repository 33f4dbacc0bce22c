//! HTTP/1 message bodies: where they end, and moving them.
//!
//! A body is passed on as it came. That is safe because its framing was read strictly: what we take for
//! its end, any server does.

use std::io;

use tokio::net::TcpStream;

use super::head::Framing;
use super::input::Input;
use crate::activity::Count;
use crate::door::send;
use crate::inspect::first::is_token;
use crate::relay::{Pool, readable};

/// A body that is being passed on.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// How passing a body on failed.
#[derive(Debug)]
pub(crate) enum Cut {
    /// The side that sends it went away.
    From,
    /// The side that receives it went away.
    To,
    /// It does not follow the grammar of its framing.
    Bad(&'static str),
}

impl From<Framing> for Body {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Body {
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::End,
            Self::UntilClose => false,
        }
    }

    /// How many of `bytes`, from the front, belong to this body.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Cut> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes).map_err(Cut::Bad),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Moves what is left of the body. `moved` counts as it goes.
    pub(crate) async fn pass(
        &mut self,
        from: &TcpStream,
        input: &mut Input,
        to: &TcpStream,
        pool: &Pool,
        moved: &Count,
    ) -> Result<(), Cut> {
        if !input.bytes().is_empty() {
            let taken = self.take(input.bytes())?;
            send(to, input.bytes().get(..taken).unwrap_or_default())
                .await
                .map_err(|_| Cut::To)?;
            moved.add(taken);
            input.consume(taken);
        }
        while !self.is_complete() {
            let mut buffer = pool.buffer();
            match from.try_read(&mut buffer) {
                Ok(0) if matches!(self, Self::UntilClose) => return Ok(()),
                Ok(0) => return Err(Cut::From),
                Ok(read) => {
                    let (read, _) = buffer.split_at(read.min(buffer.len()));
                    let taken = self.take(read)?;
                    let (ours, next) = read.split_at(taken.min(read.len()));
                    send(to, ours).await.map_err(|_| Cut::To)?;
                    moved.add(ours.len());
                    input.push(next);
                    pool.take_back(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    pool.take_back(buffer);
                    readable(from).await.map_err(|_| Cut::From)?;
                }
                Err(_) => return Err(Cut::From),
            }
        }
        Ok(())
    }
}

/// The chunked coding (RFC 9112 7.1), without any of the liberties that some parsers allow.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: At,
    /// Bytes of extensions and trailers so far, which nobody needs many of.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerLine,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Default for At {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if self.at == At::End {
                break;
            }
            if let At::Data { left } = self.at {
                let here = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - taken);
                taken += here;
                let left = left - here as u64;
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data { left }
                };
                continue;
            }
            self.at = self.step(byte)?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, &'static str> {
        Ok(match (self.at, byte) {
            (At::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                At::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or(0)),
                }
            }
            (At::Size { digits: 1.., size }, b'\r') => At::SizeLf { size },
            (At::Size { digits: 1.., size }, b';') => At::Extension { size },
            (At::Extension { size }, b'\r') => At::SizeLf { size },
            (At::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.more()?;
                At::Extension { size }
            }
            (At::SizeLf { size: 0 }, b'\n') => At::TrailerLine,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::default(),
            (At::TrailerLine, b'\r') => At::EndLf,
            (At::TrailerLine | At::TrailerName, byte) if is_token(byte) => {
                self.more()?;
                At::TrailerName
            }
            (At::TrailerName, b':') => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.more()?;
                At::Trailer
            }
            (At::TrailerLf, b'\n') => At::TrailerLine,
            (At::EndLf, b'\n') => At::End,
            _ => return Err("the chunked body does not follow HTTP/1.1's grammar"),
        })
    }

    fn more(&mut self) -> Result<(), &'static str> {
        self.extra += 1;
        if self.extra > EXTRA {
            Err("the chunked body has too many extensions or trailers")
        } else {
            Ok(())
        }
    }
}

/// Bytes of extensions and trailers in one body.
const EXTRA: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_any_server_sees_their_end() {
        #[rustfmt::skip]
        let table: [(&str, Option<&str>); 15] = [
            // the body, and what is behind it
            ("0\r\n\r\nGET /",                         Some("GET /")),
            ("3;a=b\r\nabc\r\n0\r\n\r\n",              Some("")),
            ("0\r\nX-Sum: 1\r\nY:\r\n\r\nGET /",       Some("GET /")),
            ("003\r\nabc\r\n00\r\n\r\n",               Some("")),
            // No fields, and to whoever does not read trailers the next request.
            ("0\r\nGET /x HTTP/1.1\r\n\r\n",           None),
            ("0\r\nnothing\r\n\r\n",                   None),
            ("0\r\nX : 1\r\n\r\n",                     None),
            ("0\r\n: 1\r\n\r\n",                       None),
            ("0\r\n X: 1\r\n\r\n",                     None),
            ("0\r\nX: 1\n\r\n",                        None),
            ("3\nabc\r\n0\r\n\r\n",                    None),
            ("3 \r\nabc\r\n0\r\n\r\n",                 None),
            ("+3\r\nabc\r\n0\r\n\r\n",                 None),
            ("0x3\r\nabc\r\n0\r\n\r\n",                None),
            ("3\r\nabcd\r\n0\r\n\r\n",                 None),
        ];
        for (bytes, behind) in table {
            for step in [1, bytes.len()] {
                let mut body = Body::from(Framing::Chunked);
                let mut taken = 0;
                let read = bytes.as_bytes().chunks(step).try_for_each(|piece| {
                    taken += body.take(piece)?;
                    Ok::<(), Cut>(())
                });
                let found = read.ok().filter(|()| body.is_complete());
                let found = found.and_then(|()| bytes.get(taken..));
                assert_eq!(found, behind, "{bytes:?} by {step}");
            }
        }
    }
}
