//! Reclaim: making room by evicting pages (spec F14–F24).
//!
//! A pass takes pages from the replacement queues in batches. Each page of a batch is *cleaned*:
//! its entries lose the right to store, and one flush makes that effective everywhere. Then it is
//! *written*, unless its store already has the content, while programs can still read it through
//! its entries. Then it is *unmapped*, unless it was written or used meanwhile, and freed after a
//! second flush. This is the order of BSD's laundry; Linux unmaps first. No thread faults on a page
//! under write-back, and a machine may keep a page's content only where it is mapped.

mod background;
pub(crate) mod batch;
pub(crate) mod clean;
mod engaged;
pub(crate) mod foresight;
mod pass;
pub(crate) mod passes;
pub(crate) mod queue;
pub(crate) mod room;
mod spare;
mod stales;
mod standby;
mod victim;
pub(crate) mod watermarks;
mod work;
mod write;
