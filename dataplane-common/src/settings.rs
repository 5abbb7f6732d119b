//! What the controller tells the programs, in one entry of one array.

/// How flows are admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Admission {
    /// No flow is accelerated; every packet takes the slow path.
    Off = 0,
    /// The published-port table alone decides.
    Direct = 1,
}

impl Admission {
    /// From its number in [`Settings::admission`]; anything unknown is [`Admission::Off`].
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Direct,
            _ => Self::Off,
        }
    }
}

/// The one entry of the settings map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Settings {
    /// An [`Admission`] as its number.
    pub admission: u32,
    /// Counts changes of the host's addresses and routes. A flow that was routed in another epoch
    /// looks its route up again.
    pub epoch: u32,
}

const _: () = assert!(size_of::<Settings>() == 8);
