//! An external interface whose frames have no Ethernet header: datagrams and ICMP errors about them are
//! translated there as anywhere.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::IpProtocol;
use nix::{errno::Errno, libc};
use portway_tests::{
    container::Container,
    conversation::ANSWER_LIMIT,
    harness::{self, Test},
    host::Host,
    packets::{Errors, icmp_error, segment, send},
    portway::Portway,
    requirement::{self, Requirement},
    wait,
};

fn main() -> ExitCode {
    use Requirement::{Kernel, Portway, Root, Tun};
    harness::run([Test::new(
        "errors_on_a_bare_link",
        &[Root, Kernel, Portway, Tun],
        errors,
    )])
}

const LINK: &str = "tun0";
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);

/// Communication administratively prohibited (RFC 1812 5.2.7.1).
const PROHIBITED: (u8, u8) = (3, 13);

fn errors() -> Result<()> {
    let host = Host::new()?;
    let mut link = Link::new(&host)?;
    let container = Container::new(&host, 1)?;
    let inside = container.netns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 8080))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(socket)
    })?;
    let portway = Portway::new(&host)?;
    portway.text(&format!("load --external {LINK} --admission direct"))?;
    portway.publish(&format!("9000:{}:8080/udp", container.address))?;

    let client = SocketAddr::from((CLIENT, 5000));
    let published = SocketAddr::from((HOST, 9000));
    let served = SocketAddr::from((container.address, 8080));
    let udp = IpProtocol::UDP;
    link.send(&segment(udp, client, published, b"question"))?;
    let (_, seen) = inside.recv_from(&mut [0; 64]).context("no question")?;
    ensure!(seen == client, "{seen}");
    inside.send_to(b"answer", client)?;
    let answer = link.receive(udp)?;
    ensure!(answer.ends_with(b"answer"), "{answer:02x?}");

    let errors = Errors::of(&container.netns, CLIENT.into(), ANSWER_LIMIT)?;
    let quoted = segment(udp, published, client, b"answer");
    let error = icmp_error(ROUTER.into(), HOST.into(), 50, PROHIBITED, &quoted);
    link.send(&error)?;
    let seen = errors.next()?;
    let quoted = segment(udp, served, client, b"answer");
    let expected = icmp_error(ROUTER.into(), served.ip(), 49, PROHIBITED, &quoted);
    ensure!(seen == expected, "{seen:02x?}, expected {expected:02x?}");

    let quoted = segment(udp, client, served, b"question");
    let error = icmp_error(served.ip(), CLIENT.into(), 50, PROHIBITED, &quoted);
    send(&container.netns, &error)?;
    let seen = link.receive(IpProtocol::ICMP)?;
    let quoted = segment(udp, client, published, b"question");
    let expected = icmp_error(HOST.into(), CLIENT.into(), 49, PROHIBITED, &quoted);
    ensure!(seen == expected, "{seen:02x?}, expected {expected:02x?}");

    let status = portway.status()?;
    for counter in ["forwarded", "replied", "icmp_forwarded", "icmp_replied"] {
        ensure!(status.counter(counter) == 1, "{:?}", status.counters);
    }
    Ok(())
}

/// The outside of the host's tun interface.
struct Link {
    file: File,
}

impl Link {
    fn new(host: &Host) -> Result<Self> {
        let file = host.run(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(requirement::TUN)
                .context("no tun")?;
            // SAFETY: integers and arrays of them.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(LINK.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: the request is an `ifreq` and outlives the call.
            let result =
                unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
            Errno::result(result).context("cannot make a tun interface")?;
            Ok(file)
        })?;
        host.ip(&format!("address add {HOST}/24 dev {LINK}"))?;
        host.ip(&format!("link set {LINK} up"))?;
        Ok(Self { file })
    }

    /// Has a packet come in.
    fn send(&mut self, packet: &[u8]) -> Result<()> {
        Ok(self.file.write_all(packet)?)
    }

    /// The next packet of a protocol that goes out.
    fn receive(&mut self, protocol: IpProtocol) -> Result<Vec<u8>> {
        wait::until("a packet on the link", ANSWER_LIMIT, || {
            let mut buffer = [0; 2048];
            match self.file.read(&mut buffer) {
                Ok(length) if buffer[0] >> 4 == 4 && buffer[9] == protocol.0 => {
                    Ok(Some(buffer[..length].to_vec()))
                }
                Ok(_) => Ok(None),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }
}
