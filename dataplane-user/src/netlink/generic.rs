//! Generic netlink: messages of attributes, to families that are found by name
//! (include/uapi/linux/genetlink.h).

use anyhow::{Context as _, bail};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla as _, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::connection::Connection;
use crate::text::decode_text;

/// The family that knows the others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// The first version of all families asked here, the only one.
const VERSION: u8 = 1;

/// `struct genlmsghdr`: command, version, two bytes for nothing.
const HEADER: usize = 4;

/// A family, and a connection to ask it by, of the network namespace that this was opened in.
#[derive(Debug)]
pub struct Family {
    connection: Connection<Message>,
    id: u16,
    groups: Vec<DefaultNla>,
}

impl Family {
    /// Finds the family of this name. None if the kernel does not have it.
    ///
    /// # Errors
    ///
    /// It has no generic netlink.
    pub fn open(name: &str) -> anyhow::Result<Option<Self>> {
        let connection =
            Connection::open(NETLINK_GENERIC).context("cannot open a generic netlink socket")?;
        let mut control = Self {
            connection,
            id: GENL_ID_CTRL,
            groups: Vec::new(),
        };
        let (mut id, mut groups) = (None, Vec::new());
        let asked = control.ask(
            CTRL_CMD_GETFAMILY,
            0,
            vec![text(CTRL_ATTR_FAMILY_NAME, name)],
            |answer| {
                id = number(answer, CTRL_ATTR_FAMILY_ID).map(u16::from_ne_bytes);
                groups = all(answer, CTRL_ATTR_MCAST_GROUPS)
                    .flat_map(inside)
                    .collect();
            },
        );
        // That it is not there is an error to the kernel.
        Ok(match (asked, id) {
            (Ok(()), Some(id)) => Some(Self {
                id,
                groups,
                ..control
            }),
            _ => None,
        })
    }

    /// The number of the family's multicast group of this name, if there is one.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().map(inside).find_map(|group| {
            let has_name = all(&group, CTRL_ATTR_MCAST_GRP_NAME)
                .any(|there| decode_text(&value(there)) == name);
            let id = number(&group, CTRL_ATTR_MCAST_GRP_ID)?;
            has_name.then_some(u32::from_ne_bytes(id))
        })
    }

    /// Asks and takes the attributes of all answers.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn ask(
        &mut self,
        command: u8,
        flags: u16,
        attributes: Vec<DefaultNla>,
        mut take: impl FnMut(&[DefaultNla]),
    ) -> anyhow::Result<()> {
        let request = Message {
            family: self.id,
            command,
            attributes,
        };
        let request = NetlinkMessage::new(NetlinkHeader::default(), request.into());
        self.connection.send(flags, vec![request])?;
        let mut end = None;
        while end.is_none() {
            self.connection.receive(|message| match &message.payload {
                NetlinkPayload::InnerMessage(answer) => take(&answer.attributes),
                NetlinkPayload::Error(error) => end = Some(error.raw_code()),
                NetlinkPayload::Done(done) => end = Some(done.code),
                _ => {}
            })?;
        }
        match end {
            Some(code) if code != 0 => bail!(std::io::Error::from_raw_os_error(-code)),
            _ => Ok(()),
        }
    }
}

/// An attribute of text.
pub fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

/// An attribute of attributes.
pub fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// The bytes of the first attribute of this kind, if there is one and it is as long.
pub fn number<const N: usize>(attributes: &[DefaultNla], kind: u16) -> Option<[u8; N]> {
    let mut of_kind = all(attributes, kind);
    value(of_kind.next()?).try_into().ok()
}

/// All attributes of a kind.
pub fn all(attributes: &[DefaultNla], kind: u16) -> impl Iterator<Item = &DefaultNla> {
    attributes.iter().filter(move |there| there.kind() == kind)
}

/// The bytes of an attribute.
pub fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

/// The attributes in an attribute; none if it makes no sense as such.
pub fn inside(attribute: &DefaultNla) -> Vec<DefaultNla> {
    parse(&value(attribute)).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Result<Vec<DefaultNla>, DecodeError> {
    NlasIterator::new(bytes)
        .map(|attribute| {
            let attribute = attribute?;
            Ok(DefaultNla::new(
                attribute.kind(),
                attribute.value().to_vec(),
            ))
        })
        .collect()
}

/// A message.
#[derive(Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER);
        header.copy_from_slice(&[self.command, VERSION, 0, 0]);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((&[command, ..], attributes)) = payload.split_first_chunk::<HEADER>() else {
            return Err("a generic netlink message without its header".into());
        };
        Ok(Self {
            family: header.message_type,
            command,
            attributes: parse(attributes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = Message {
            family: 21,
            command: 1,
            attributes: vec![
                DefaultNla::new(1, 7_u32.to_ne_bytes().to_vec()),
                nested(2, &[text(1, "rx-gro"), text(1, "rx-lro"), text(3, "")]),
            ],
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let read = Message::deserialize(&NetlinkHeader::default(), &bytes).expect("a message");
        assert_eq!(read.command, message.command);
        assert_eq!(number(&read.attributes, 1), Some(7_u32.to_ne_bytes()));
        assert_eq!(number::<8>(&read.attributes, 1), None);
        assert_eq!(number::<4>(&read.attributes, 3), None);
        let texts: Vec<_> = all(&read.attributes, 2)
            .flat_map(inside)
            .filter(|attribute| attribute.kind() == 1)
            .map(|attribute| value(&attribute))
            .collect();
        assert_eq!(texts, [b"rx-gro\0", b"rx-lro\0"]);
        assert!(Message::deserialize(&NetlinkHeader::default(), &bytes[..3]).is_err());
    }
}
