//! What has arrived, against what must have: every byte of a frame's beginning, checksums computed from
//! scratch.

use anyhow::{Context, Result, ensure};
use bytemuck::{bytes_of, pod_read_unaligned};
use dataplane_common::headers::{Be16, Be32, Mac};
use portway_bench_ebpf::{Headers, Sample};

use crate::frame::{FIRST_CONTAINER_PORT, FIRST_PORT, Frame, fill_in_checksums, flow_of, payload};

/// What must become of a frame on its way.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The frame of flow 0, as it is sent.
    pub frame: Frame,
    /// How many ports are published.
    pub ports: u16,
    /// Where the ports lead, if packets are translated.
    pub container: Option<Be32>,
    /// The container's MAC address.
    pub container_mac: Mac,
}

impl Expected {
    /// Checks frames that have reached the container.
    ///
    /// # Errors
    /// One is not as it must be.
    pub fn check_arrived(&self, samples: &[Sample]) -> Result<()> {
        self.check(samples, |received| {
            let (source, port) = (received.ipv4.source, received.udp.ports.source);
            let flow = flow_of(source, port)?;
            let mut wanted = self.translated(flow);
            // Who hands it on is nobody's concern.
            wanted.ethernet.source = received.ethernet.source;
            Some(wanted)
        })
        .context("what reaches the container is wrong")
    }

    /// Checks answers that have reached the client.
    ///
    /// # Errors
    /// As [`Expected::check_arrived`].
    pub fn check_answered(&self, samples: &[Sample]) -> Result<()> {
        self.check(samples, |received| {
            let (client, port) = (received.ipv4.destination, received.udp.ports.destination);
            let flow = flow_of(client, port)?;
            let mut wanted = self.frame.headers.for_flow(flow, self.ports).answer();
            wanted.ethernet.source = received.ethernet.source;
            // Two hops, there and back.
            wanted.ipv4.ttl -= if self.container.is_some() { 2 } else { 0 };
            Some(wanted)
        })
        .context("what comes back to the client is wrong")
    }

    /// The headers of a flow's frame when it reaches the container.
    fn translated(&self, flow: u32) -> Headers {
        let mut headers = self.frame.headers.for_flow(flow, self.ports);
        headers.ethernet.destination = self.container_mac;
        if let Some(container) = self.container {
            let outside = { headers.udp.ports.destination }.get();
            headers.ipv4.ttl -= 1;
            headers.ipv4.destination = container;
            headers.udp.ports.destination = Be16::new(outside - FIRST_PORT + FIRST_CONTAINER_PORT);
        }
        headers
    }

    fn check(
        &self,
        samples: &[Sample],
        wanted: impl Fn(&Headers) -> Option<Headers>,
    ) -> Result<()> {
        ensure!(!samples.is_empty(), "nothing has arrived");
        let payload = payload(self.frame.length);
        for sample in samples {
            let length = sample.length as usize;
            ensure!(
                length == self.frame.length,
                "{length} bytes, not {}",
                self.frame.length
            );
            let (received, rest) = sample.bytes.split_at(size_of::<Headers>());
            let headers: Headers = pod_read_unaligned(received);
            let mut wanted =
                wanted(&headers).with_context(|| format!("nobody has sent this: {headers:x?}"))?;
            fill_in_checksums(&mut wanted, &payload);
            ensure!(
                received == bytes_of(&wanted) && payload.starts_with(rest),
                "received {headers:x?}\nexpected {wanted:x?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

    fn expected() -> Expected {
        Expected {
            frame: Frame::new([2; 6], [4; 6], HOST, 60),
            ports: 10,
            container: Some(Be32::new(0x0a62_0002)),
            container_mac: [6; 6],
        }
    }

    fn sample(headers: Headers) -> Sample {
        let mut sample = Sample {
            length: 60,
            bytes: [0; 60],
        };
        sample.bytes[..42].copy_from_slice(bytes_of(&headers));
        sample.bytes[42..].copy_from_slice(&payload(60));
        sample
    }

    fn arrived() -> Headers {
        let mut headers = expected().translated(77);
        fill_in_checksums(&mut headers, &payload(60));
        headers
    }

    #[test]
    fn what_is_right_passes() -> Result<()> {
        expected().check_arrived(&[sample(arrived())])
    }

    #[test]
    fn every_wrong_byte_is_noticed() {
        let right = sample(arrived());
        // The source MAC, bytes 6 to 11, is anybody's.
        for at in (0..6).chain(12..60) {
            let mut wrong = right;
            wrong.bytes[at] ^= 1;
            assert!(expected().check_arrived(&[wrong]).is_err(), "byte {at}");
        }
        let shorter = Sample {
            length: 59,
            ..right
        };
        assert!(expected().check_arrived(&[shorter]).is_err());
        assert!(expected().check_arrived(&[]).is_err());
    }

    #[test]
    fn an_untranslated_frame_is_no_translated_one() {
        let sent = sample(expected().frame.headers.for_flow(77, 10));
        assert!(expected().check_arrived(&[sent]).is_err());
    }

    #[test]
    fn an_answer_has_come_two_hops() -> Result<()> {
        let mut headers = expected().frame.headers.for_flow(77, 10).answer();
        headers.ipv4.ttl = 62;
        fill_in_checksums(&mut headers, &payload(60));
        expected().check_answered(&[sample(headers)])?;
        headers.ipv4.ttl = 63;
        fill_in_checksums(&mut headers, &payload(60));
        assert!(expected().check_answered(&[sample(headers)]).is_err());
        Ok(())
    }
}
