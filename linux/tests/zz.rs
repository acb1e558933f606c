use pagefault_linux::Delivery;
use pagefault_linux::memory::*;
const PAGE: usize = 4096;
#[test]
fn dbg() {
    for mib in [1usize, 8] {
        let memory = Memory::builder(2 << 20).delivery(Delivery::Inline).build().unwrap();
        let mut region = memory.map(mib << 20).unwrap();
        let pages = region.len() / PAGE;
        for p in 0..pages {
            region[p * PAGE] = 1;
        }
        let mut first = memory.snapshot().unwrap();
        for p in (0..pages).step_by(2) {
            region[p * PAGE] = 2;
        }
        let second = memory.snapshot().unwrap();
        for p in (0..pages).step_by(3) {
            first.get_mut(&region).unwrap()[p * PAGE] = 3;
        }
        let mut bad = [0; 3];
        let mut ex = vec![];
        for p in 0..pages {
            let c = if p % 2 == 0 { 2 } else { 1 };
            if region[p * PAGE] != c {
                bad[0] += 1;
                ex.push((0, p, region[p * PAGE]));
            }
            if second.get(&region).unwrap()[p * PAGE] != c {
                bad[1] += 1;
                ex.push((1, p, second.get(&region).unwrap()[p * PAGE]));
            }
            let o = if p % 3 == 0 { 3 } else { 1 };
            if first.get(&region).unwrap()[p * PAGE] != o {
                bad[2] += 1;
                ex.push((2, p, first.get(&region).unwrap()[p * PAGE]));
            }
        }
        ex.truncate(10);
        println!("{mib} {bad:?} {ex:?} check {:?}", ());
        println!("{:?}", memory.stats());
    }
}
