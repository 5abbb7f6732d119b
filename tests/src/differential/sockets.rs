//! Conversations of real sockets in both twins: what the client's program gets to see is compared.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use fastrand::Rng;
use socket2::SockRef;

use super::{generate::one_of, twin::SERVED};
use crate::{
    conversation::{self, Datagrams},
    lab::{CLIENTS, HOST, HOST_SECONDARY, Lab},
};

/// Where the clients' ports begin; each conversation has its own.
const FIRST_PORT: u16 = 20_000;

/// What a client does.
#[derive(Debug, Clone, Copy)]
enum Talk {
    /// Asks for a page; the server closes first.
    Http,
    /// Sends lines and gets them back; the client closes first.
    Echo(u16),
    /// Sends much, both ways at once, and closes its half first.
    Bulk(usize),
    /// Resets its connection, and connects from the same port again.
    Reset,
    /// Connects to a port that nobody serves.
    Refused,
    /// Sends datagrams and gets them back.
    Datagrams(u32, usize),
}

/// Has so many conversations in both labs.
///
/// # Errors
/// One had another outcome in one than in the other.
pub fn compare(labs: [&Lab; 2], random: &mut Rng, count: u16) -> Result<()> {
    for number in 0..count {
        let talk = match random.u8(..10) {
            0 | 1 => Talk::Http,
            2 | 3 => Talk::Echo(random.u16(1..50)),
            4 | 5 => Talk::Bulk(random.usize(1..1 << 20)),
            6 => Talk::Reset,
            7 => Talk::Refused,
            _ => Talk::Datagrams(random.u32(1..10), random.usize(4..1400)),
        };
        let source = SocketAddr::from((one_of(random, &CLIENTS), FIRST_PORT + number));
        let host = one_of(random, &[HOST, HOST_SECONDARY]);
        let [without, with] = labs.map(|lab| {
            let outcome = lab.client.run(|| Ok(talk.have(source, host)));
            outcome.unwrap_or_else(Err)
        });
        let [without, with] = [without, with].map(|outcome| format!("{outcome:?}"));
        ensure!(
            without == with,
            "{talk:?} from {source} to {host}: without portway {without}, with it {with}"
        );
    }
    Ok(())
}

impl Talk {
    fn have(self, source: SocketAddr, host: Ipv4Addr) -> Result<String> {
        let [http, tcp, udp] = SERVED.map(|(_, port)| SocketAddr::from((host, port)));
        let from = Some(source);
        Ok(match self {
            Self::Http => format!("{:?}", conversation::http_get(from, &http.to_string())),
            Self::Echo(lines) => {
                let mut stream = conversation::connect(from, tcp)?;
                for line in 0..lines {
                    let line = format!("{line} ").repeat(usize::from(line) + 1);
                    conversation::echo_over(&mut stream, &line)?;
                }
                "echoed".into()
            }
            Self::Bulk(bytes) => {
                conversation::bulk_echo(from, tcp, bytes)?;
                "echoed".into()
            }
            Self::Reset => {
                for _ in 0..2 {
                    let mut stream = conversation::connect(from, tcp)?;
                    conversation::echo_over(&mut stream, "until the reset")?;
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
                "twice".into()
            }
            Self::Refused => {
                let nobody = SocketAddr::new(tcp.ip(), tcp.port() + 100);
                format!("{:?}", conversation::connect(from, nobody).map(drop))
            }
            Self::Datagrams(count, length) => {
                let mut datagrams = Datagrams::new(from, udp)?;
                let echoes: Vec<_> = (0..count).map(|_| datagrams.echo(length)).collect();
                format!("{echoes:?}")
            }
        })
    }
}
