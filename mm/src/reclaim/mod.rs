//! Reclaim: making room by evicting pages (spec F14–F24).
//!
//! A pass takes pages from the replacement queues in batches. Each page of a batch is *cleaned*:
//! its entries lose the right to store, and one flush makes that true everywhere. Then it is
//! *written*, if its store has not the same content already, while it can still be read through
//! its entries. Then it is *unmapped*, unless someone wrote or used it meanwhile, and freed after a
//! second flush. This is the order of BSD's laundry rather than that of Linux, which unmaps first:
//! nobody faults on a page while it is being written, and a machine need not keep the content of a
//! page anywhere but where it is mapped.

mod background;
pub(crate) mod batch;
mod engaged;
pub(crate) mod foresight;
mod pass;
pub(crate) mod passes;
pub(crate) mod queue;
pub(crate) mod room;
mod stales;
mod standby;
pub(crate) mod watermarks;
mod write;
