//! How many frames are kept free.

/// How many free frames there should be (spec F22). Linux's third mark, the minimum, is the machine's own: it
/// may report that no frame is free while it keeps some back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Below this the background thread is woken.
    pub low: u32,
    /// The background thread reclaims until this many are free.
    pub high: u32,
    /// This many pages of files stay when nothing else can leave, because programs run from them.
    pub(crate) files: u32,
}

impl Watermarks {
    pub(crate) fn new(frames: u32) -> Self {
        let low = (frames / 64).clamp(1, 2048);
        Self { low, high: low * 2, files: frames / 128 }
    }
}
