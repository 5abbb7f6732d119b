//! What the controller keeps in pinned maps for its own use and never the programs': any later command
//! finds there what is published and what is attached, with no daemon in between.

/// A row of `portway ls`, by the number of its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Row {
    /// The host's address; an IPv4 address fills the first four bytes, all zero means any.
    pub host_ip: [u8; 16],
    /// The container's address, in the same form.
    pub container_ip: [u8; 16],
    /// The container's name in UTF-8, filled up with zeros.
    pub name: [u8; 64],
    /// The host's first port, in host byte order as the two below.
    pub first_port: u16,
    /// The host's last port.
    pub last_port: u16,
    /// The container's port that `first_port` leads to.
    pub container_port: u16,
    /// IANA's protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// 4 or 6.
    pub host_ip_version: u8,
    /// 4 or 6.
    pub container_ip_version: u8,
    /// Who asked for it, numbered by the controller.
    pub source: u8,
    /// Active, or why not, numbered by the controller.
    pub state: u8,
    /// Zero.
    pub reserved: u8,
}

/// What is noted of an interface: a program that is attached there, or another change or decision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct HookKey {
    /// The interface.
    pub ifindex: u32,
    /// What the note is about, numbered by the controller.
    pub role: u32,
}

/// The note: how a program is attached, or what else there is to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Hook {
    /// Kind of the hook, or of the decision, numbered by the controller.
    pub kind: u32,
    /// The clsact filter's handle; what decided where XDP was decided against; zero else.
    pub handle: u32,
    /// The clsact filter's priority; zero for other kinds.
    pub priority: u16,
    /// 1 if the clsact qdisc was not there before, so that it goes with the last filter.
    pub owns_qdisc: u16,
}

impl Hook {
    /// A note of which there is no more to say than its kind.
    pub const fn of_kind(kind: u32) -> Self {
        Self {
            kind,
            handle: 0,
            priority: 0,
            owns_qdisc: 0,
        }
    }
}

/// How an instance was loaded, the one entry of its map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Record {
    /// The version of portway that loaded it, in UTF-8, filled up with zeros.
    pub version: [u8; 32],
    /// Why flows are admitted as they are, in the same form.
    pub admission_why: [u8; 184],
    /// Tells one build's programs from another's.
    pub build: u64,
    /// Decides which flows share a bucket: the same for all programs that work on them.
    pub hash_seed: u64,
    /// 1 if conntrack was made liberal about TCP windows here, and is to be strict again one day.
    pub made_liberal: u32,
    /// What the user asked for, numbered by the controller.
    pub admission_request: u32,
    /// Which kind of TC hook the user wants, numbered by the controller.
    pub hook_preference: u32,
    /// Whether the user wants XDP, numbered by the controller.
    pub mode: u32,
    /// By what containers are to take frames from XDP, numbered by the controller.
    pub intake: u32,
    /// The network namespace it is in, by inode (lsns(8) shows it).
    pub namespace: u32,
    /// 1 if the external interfaces are those of the default routes, wherever these go.
    pub follows_default_routes: u32,
    /// How many IPv4 flows there is room for.
    pub max_flows: u32,
    /// 1 if the programs tell of each new flow.
    pub traces: u32,
    /// The number the last row was given. Numbers are given in turn, so that one is not soon used again
    /// while a program may still be at work with it.
    pub last_row: u32,
    /// The generation the last backend was given; one is never given twice.
    pub last_generation: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Record>() == 280);
const _: () = assert!(size_of::<Row>() == 108);
const _: () = assert!(size_of::<HookKey>() == 8);
const _: () = assert!(size_of::<Hook>() == 12);
