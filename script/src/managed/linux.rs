//! Scripts in a Linux process.

use crate::machine::{Setup, StartError};
use crate::managed::{Managed, Processor, Stopped};
use pagefault::Mm;
use pagefault_linux::LinuxMachine;
use std::sync::Arc;

pub(super) struct LinuxProcessor;

pub(super) fn start(_setup: &Setup) -> Result<Managed<LinuxMachine, LinuxProcessor>, StartError> {
    Err(StartError::Sizes)
}

impl Processor<LinuxMachine> for LinuxProcessor {
    fn load(&mut self, _: &Arc<Mm<LinuxMachine>>, _: u64, _: &mut [u8]) -> Result<(), Stopped> {
        Err(Stopped::OutOfMemory)
    }
    fn store(&mut self, _: &Arc<Mm<LinuxMachine>>, _: u64, _: &[u8]) -> Result<(), Stopped> {
        Err(Stopped::OutOfMemory)
    }
    fn fetch(&mut self, _: &Arc<Mm<LinuxMachine>>, _: u64) -> Result<(), Stopped> {
        Err(Stopped::OutOfMemory)
    }
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
