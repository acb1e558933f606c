//! C programs that do what a runtime easily gets wrong. A plain run has the right answer.

use crate::harness::{Scratch, compile as build, have, message};
use std::process::Command;

/// Builds a program from beside this file, and compares it managed with plain.
fn compare(name: &str, memory: &str) {
    let scratch = Scratch::new(name);
    if let Some(program) = build(&scratch, name) {
        scratch.compare(memory, &[&program]);
    }
}

/// Each call that takes memory, with buffers resident, evicted, partly evicted, unmapped and
/// read-only.
#[test]
fn calls_on_evicted_memory_are_the_kernel_s() {
    compare("table", "16M");
}

/// Handlers, masks, stacks, faults, interrupted waits, timers, stops.
#[test]
fn signals_are_the_kernel_s() {
    compare("signal_kinds", "16M");
}

/// Frames that the program made, and from which it returns.
#[test]
fn a_return_from_a_handler_is_the_kernel_s() {
    compare("returns", "4M");
    compare("returns", "64M");
}

/// What `/proc` tells of a process's handlers, its mask and its filters of calls.
#[test]
fn a_status_file_is_the_kernel_s() {
    compare("status", "4M");
    compare("status", "64M");
}

/// Memory moves to address 0 and is mapped there.
#[test]
fn memory_at_address_0_is_the_kernel_s() {
    compare("low", "4M");
    compare("low", "64M");
}

/// A call that takes several descriptors, lists of them in memory, and memory that takes none.
#[test]
fn descriptors_of_the_runtime_are_closed_to_calls_that_name_several() {
    compare("unseen", "4M");
    compare("unseen", "64M");
}

/// Each descriptor that the table of calls knows.
#[test]
fn descriptors_of_the_runtime_are_closed_to_every_call() {
    use pagefault_calls::{Arg, Class};
    let scratch = Scratch::new("closed");
    let Some(program) = build(&scratch, "closed") else { return };
    let letter = |arg: &Arg| match arg {
        Arg::None => None,
        Arg::Fd => Some('f'),
        Arg::Value => Some('v'),
        Arg::Str(_) => Some('s'),
        _ => Some('a'),
    };
    // Refused calls name none, and nobody wants the others where one of them succeeds.
    let is_tried = |call: &&pagefault_calls::Call| {
        call.descriptors() != 0
            && !matches!(call.class, Class::Refused(_) | Class::Absent)
            && !matches!(call.name, "kexec_file_load" | "finit_module" | "execveat")
    };
    let all = (0..pagefault_calls::NUMBERS).filter_map(pagefault_calls::describe).filter(is_tried);
    let lines: String = all
        .map(|call| {
            let kinds: String = call.args.iter().filter_map(letter).collect();
            format!("{} {} {kinds}\n", call.nr, call.name)
        })
        .collect();
    std::fs::write(scratch.path("calls"), lines).unwrap();
    scratch.compare("16M", &["sh", "-c", &format!("{program} < calls")]);
}

/// A call that fails on memory that it may not write has done what the kernel's has, once.
#[test]
fn a_call_that_fails_late_is_made_once() {
    compare("once", "4M");
    compare("once", "64M");
}

/// Clone in all forms, fork among threads, ends of threads and processes.
#[test]
fn threads_and_processes_are_the_kernel_s() {
    compare("tasks", "16M");
}

/// Memory shared by several processes outlives its first one; and the kernel's work at the end of one of
/// them.
#[test]
fn a_memory_lives_as_long_as_somebody_uses_it() {
    let scratch = Scratch::new("shared");
    let Some(program) = build(&scratch, "shared") else { return };
    for how in ["killed", "executes", "cleared", "many", "handlers", "threads"] {
        scratch.compare("16M", &[&program, how]);
    }
}

/// What a debugger reads and writes of evicted memory, and a long copy to and from another process.
#[test]
fn accesses_from_another_process_are_the_kernel_s() {
    compare("peeked", "6M");
    compare("seized", "5M");
    compare("outsider", "6M");
    compare("stored", "6M");
    compare("memory_file", "4M");
}

/// Calls that succeed in part, and the first process of a namespace, which a fault ends although no
/// signal can.
#[test]
fn what_is_done_in_part_is_the_kernel_s() {
    compare("partial", "16M");
}

/// Memory that is locked later than it is mapped, or mapped later than all is locked.
#[test]
fn locked_memory_is_mapped_before_its_pages_can_come() {
    compare("locked_later", "32M");
}

/// Locks of memory that grows and gets rights, and those of a child.
#[test]
fn locks_of_memory_are_the_kernel_s() {
    compare("locked", "4M");
    compare("locked", "64M");
}

/// The key that forbids a program its own memory forbids the runtime nothing.
#[test]
fn memory_with_a_protection_key_is_the_kernel_s() {
    for memory in ["2M", "4M", "64M"] {
        compare("keys", memory);
    }
}

/// Arguments and environment in many pages.
#[test]
fn a_program_may_have_many_arguments() {
    compare("words", "1M");
    compare("words", "4M");
}

/// The runtime's lists of many regions come and go with a call.
#[test]
fn calls_on_many_regions_take_no_addresses() {
    compare("many_regions", "4M");
}

/// The runtime's block of a thread serves a later one.
#[test]
fn threads_leave_nothing_behind() {
    compare("many_threads", "64M");
}

/// Guard pages stay guards, whatever fills their neighbours, and a sealed mapping stays unchanged.
#[test]
fn guards_and_seals_are_the_kernel_s() {
    compare("guards", "16M");
}

/// A page evicted while only one thread is awake keeps the stores of a thread that wakes up, and the
/// kernel's stores for one that sleeps.
#[test]
fn what_a_thread_stores_that_wakes_is_there() {
    compare("sleepers", "2M");
}

/// Two threads store to pages that are evicted meanwhile, and that a child shares.
#[test]
fn no_store_of_a_thread_is_lost() {
    let scratch = Scratch::new("storers");
    let Some(program) = build(&scratch, "storers") else { return };
    scratch.compare("4M", &[&program]);
    // So much that the fork is the host's alone.
    scratch.compare("128M", &[&program, "once", "128"]);
}

/// Children that are stopped hold more memory than there is, while their parent needs some.
#[test]
fn stopped_processes_give_memory_up() {
    compare("stopped", "6M");
}

/// Each register of an instruction that faults, with two timers that fire all the time.
#[test]
fn an_instruction_that_faulted_goes_on_with_its_registers() {
    compare("restarts", "4M");
}

/// `seccomp`: a program's filters do not apply to the runtime.
#[test]
fn filters_judge_the_program_alone() {
    compare("filters", "16M");
}

/// The limits of file sizes and of descriptors.
#[test]
fn limits_concern_the_program_alone() {
    compare("limits", "16M");
}

/// Exceptions of the processor, and the flags under which our own code would raise them.
#[test]
fn exceptions_are_the_processor_s() {
    compare("exceptions", "16M");
}

/// The limits of address space and data, and calls with invalid ranges.
#[test]
fn address_space_is_the_program_s() {
    compare("space", "64M");
}

/// No address is left when the first page goes to the swap file.
#[test]
fn a_program_may_reserve_every_address() {
    compare("reserved", "4M");
}

/// Lists of descriptors, and every possible descriptor number.
#[test]
fn descriptors_are_the_program_s() {
    compare("listing", "16M");
}

/// A debugger starts programs: they run unmanaged, with a line that says so.
#[test]
fn a_program_may_trace_what_it_starts() {
    let scratch = Scratch::new("traced");
    let Some(program) = build(&scratch, "traced") else { return };
    let plain = scratch.plain(&[&program]).output().unwrap();
    let managed = scratch.run(&["--memory", "16M"], &[&program]).output().unwrap();
    assert_eq!((&managed.stdout, managed.status), (&plain.stdout, plain.status));
    assert!(message(&managed).contains("traces from its start runs unmanaged"), "{managed:?}");
}

/// A program asks its parent to trace it, to learn whether a debugger does. The launcher does not, and neither does a
/// shell that reads from a pipe.
#[test]
fn a_program_may_ask_its_parent_to_trace_it() {
    let scratch = Scratch::new("untraced");
    let Some(program) = build(&scratch, "untraced") else { return };
    for memory in ["4M", "64M"] {
        scratch.compare(memory, &[&program]);
        scratch.compare(memory, &["sh", "-c", "said=$(./untraced); echo $? $said"]);
    }
}

/// A debugger of the tree sees its tracee as without us: absent pages do not show.
#[test]
fn a_tracer_is_shown_the_faults_that_are_the_program_s() {
    compare("debugged", "16M");
}

/// `strace`, or gdb with several threads: each tracee goes on as its tracer had it go on, whatever of ours it stopped
/// for meanwhile, and its end makes no calls of ours.
#[test]
fn a_tracer_sees_the_calls_that_are_the_program_s() {
    compare("traced_calls", "16M");
    compare("traced_calls", "4M");
}

/// A debugger's `stepi` through calls and faults leaves no trap behind.
#[test]
fn a_tracee_that_was_stepped_runs_on() {
    compare("stepped", "4M");
    compare("stepped", "64M");
}

/// The runtime handles signals that dump core, and their default follows: a tracer is told of one.
#[test]
fn a_tracer_is_told_once_of_a_signal_that_ends_a_process() {
    compare("dumped", "4M");
    compare("dumped", "64M");
}

/// A move of several mappings of one length.
#[test]
fn several_mappings_move_at_once() {
    compare("carried", "4M");
    compare("carried", "64M");
}

/// A tracer that reads from a pipe, sleeps, or waits for another child: its tracee's calls do not wait for it.
#[test]
fn a_tracer_need_not_wait_for_its_tracees() {
    compare("not_waiting", "16M");
    compare("not_waiting", "2M");
}

/// A handler's signal that comes while a call is made once more: the program called once.
#[test]
fn a_call_made_again_is_interrupted_as_one() {
    compare("interrupted", "16M");
}

/// Signals that stop a tracee in its memory manager before it has raised the one that stopped it there.
#[test]
fn a_tracer_is_told_of_signals_that_come_one_after_the_other() {
    compare("many_signals", "4M");
}

/// The server of a process is in no namespace of its children.
#[test]
fn a_program_makes_the_first_process_of_a_namespace() {
    compare("namespaces", "4M");
}

/// A call that several things forbid has the kernel's error, and `clone3` reads process IDs from an evicted page.
#[test]
fn a_call_fails_as_the_kernel_s() {
    compare("ordered", "4M");
}

/// A thread unmaps its stack, with its libc's data, and ends.
#[test]
fn a_thread_may_unmap_its_stack() {
    compare("unmapped_stack", "16M");
}

/// Transfers of more pages than one call may keep resident: a quarter of the limit.
#[test]
fn long_transfers_are_whole() {
    let scratch = Scratch::new("transfers");
    let Some(program) = build(&scratch, "transfers") else { return };
    for memory in ["1M", "2M", "16M"] {
        scratch.compare(memory, &[&program]);
    }
}

/// A process gives up frames while it waits in a call that has done a part.
#[test]
fn a_press_cuts_no_transfer() {
    compare("cut", "8M");
}

/// Where the limit of address space holds for the runtime too, the program is refused memory in time.
#[test]
fn a_hard_limit_of_address_space_is_no_end() {
    let scratch = Scratch::new("crowded");
    let Some(program) = build(&scratch, "crowded") else { return };
    for (limit, memory) in [("-v 40000", "16M"), ("-v 50000", "24M"), ("-v 60000", "1M")] {
        // The tables of a larger file are larger, too.
        let options = ["--memory", memory, "--swap", "ram", "--swap", "file::64M"];
        let mut command = scratch.run(&options, &[&program]);
        let output = limited(&mut command, limit).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "full, 0 wrong\n", "{output:?}");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// The command itself, too, needs little stack.
#[test]
fn a_small_stack_suffices() {
    let scratch = Scratch::new("small-stack");
    for kibibytes in ["64", "80", "160"] {
        let mut command = scratch.run(&["--memory", "16M"], &["sh", "-c", "ulimit -s"]);
        let output = limited(&mut command, &format!("-s {kibibytes}")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{kibibytes}\n"), "{output:?}");
    }
}

/// A command under a limit of the shell's `ulimit`, soft and hard.
fn limited(command: &mut Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap());
    }
    shell
}

/// Messages of sockets in more pages than one call may keep resident, and streams whose reader goes.
#[test]
fn long_messages_are_whole() {
    let scratch = Scratch::new("messages");
    let Some(program) = build(&scratch, "messages") else { return };
    for memory in ["1M", "4M", "16M"] {
        scratch.compare(memory, &[&program]);
    }
}

/// Processes that share memory, and threads by their IDs: copies between processes, memory files and limits mean this
/// memory, however little of it is resident.
#[test]
fn a_thread_s_id_names_the_program_s_memory() {
    let scratch = Scratch::new("sharers");
    let Some(program) = build(&scratch, "sharers") else { return };
    scratch.compare("2M", &[&program]);
}

/// Read-only memory that was there before the process came under its limit.
#[test]
fn read_only_memory_leaves_and_comes_back() {
    compare("readonly", "8M");
}

/// Code that nobody may read, as with protection keys.
#[test]
fn memory_that_may_only_be_executed_leaves_and_comes_back() {
    compare("exec_only", "4M");
}

/// Signals come while what they do changes.
#[test]
fn a_signal_may_come_while_its_action_changes() {
    compare("actions", "16M");
}

/// A filter that is set for all threads reaches those that are created, or that add one of their own, meanwhile.
#[test]
fn no_thread_escapes_a_filter() {
    let scratch = Scratch::new("synchronized");
    let Some(program) = build(&scratch, "synchronized") else { return };
    for others in ["created", "filtered"] {
        scratch.compare("16M", &[&program, others]);
    }
}

/// A process forks while its other thread is in a call that locks what the child needs.
#[test]
fn a_child_finds_no_lock_held() {
    compare("holders", "4M");
}

/// A leak checker stops its own threads: it sees each where its program is, whether it waits in a cold or a hot call.
#[test]
fn a_tracer_in_the_same_memory_sees_the_program_s_stack() {
    compare("leaks", "16M");
}

/// A profiler's or an alarm's signals come while a process gives up frames in the middle of a call.
#[test]
fn signals_may_come_during_a_press() {
    compare("alarmed", "16M");
}

/// An exec that fails while signals come, and what one that succeeds passes on.
#[test]
fn signals_may_come_during_an_exec() {
    compare("exec_fails", "16M");
}

/// Threads that execute programs at once, execs that fail late, and filters that an exec passes on.
#[test]
fn an_exec_is_whole() {
    let scratch = Scratch::new("execs");
    let Some(program) = build(&scratch, "execs") else { return };
    let stats = scratch.compare("16M", &[&program, "together"]);
    assert_eq!(stats["programs"], 21, "{stats}");
    for how in ["limited", "filtered"] {
        scratch.compare("16M", &[&program, how]);
    }
}

/// `mremap` of a range that begins with a mapping of the host's and ends with managed memory; `shmat` over managed
/// memory.
#[test]
fn mappings_of_several_kinds_move_together() {
    compare("several", "16M");
}

/// `mmap` and `process_madvise` that are refused after the runtime could have acted.
#[test]
fn a_refused_call_changes_nothing() {
    compare("refused", "16M");
}

/// `int 0x80` in 64-bit code: other numbers, other registers.
#[test]
fn old_calls_mean_what_they_meant() {
    compare("old_calls", "16M");
}

/// The vDSO unmapped or moved, handlers that interrupt 32-bit code, the 32-bit entry into the kernel.
#[test]
fn a_program_need_not_be_kind() {
    let scratch = Scratch::new("unkind");
    let Some(program) = build(&scratch, "unkind") else { return };
    for how in ["no-vdso", "moved-vdso", "compatibility", "sysenter"] {
        scratch.compare("8M", &[&program, how]);
    }
}

/// The kernel's own accesses to evicted memory: vsyscalls, `/proc/self/mem`, robust lists; and
/// signals that are unblocked together.
#[test]
fn evicted_memory_is_there_for_the_kernel_too() {
    let scratch = Scratch::new("absent");
    let Some(program) = build(&scratch, "absent") else { return };
    for how in ["vsyscall", "own-memory", "robust", "together"] {
        scratch.compare("16M", &[&program, how]);
    }
}

/// The runtime's code and constants are one mapping of its file, to which nobody writes; its data follows.
#[test]
fn the_runtime_s_own_memory_is_protected() {
    let scratch = Scratch::new("own-memory");
    let output = scratch.run(&["--memory", "16M"], &["cat", "/proc/self/maps"]).output().unwrap();
    let maps = String::from_utf8(output.stdout).unwrap();
    assert!(!maps.contains("rwx"), "{maps}");
    let mut lines = maps.lines();
    let code = lines.find(|line| line.contains("pagefault-runtime"));
    let code = code.filter(|line| line.contains(" r-xp 00000000 ")).unwrap();
    let end = code.split([' ', '-']).nth(1).unwrap();
    let data = lines.next().unwrap();
    assert!(data.starts_with(end) && data.contains(" rw-p "), "{maps}");
    assert!(!lines.any(|line| line.contains("pagefault-runtime")), "{maps}");
}

/// A tree has its runtime at one place in all programs, except in those that have something else there.
#[test]
fn a_program_may_be_where_the_runtime_would() {
    const PLACE: &str = "7ee000000000";
    if !have("cc") || !have("setarch") {
        return;
    }
    let scratch = Scratch::new("occupied");
    // Without random addresses the place is always the same.
    let run = |program: &[&str]| {
        let managed = scratch.run(&["--memory", "16M"], program);
        let mut command = Command::new("setarch");
        command.arg("-R").arg(managed.get_program()).args(managed.get_args());
        command.current_dir(managed.get_current_dir().unwrap());
        command.envs(managed.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    let maps = run(&["cat", "/proc/self/maps"]);
    let maps = String::from_utf8_lossy(&maps.stdout).into_owned();
    let is_runtime = |line: &str| line.starts_with(PLACE) && line.contains("pagefault-runtime");
    assert!(maps.lines().any(is_runtime), "{maps}");

    let program = scratch.path("occupied");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/occupied.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-nostdlib", "-static", "-no-pie", "-fno-pie", "-mcmodel=large"]);
    compiler.arg(format!("-Wl,-Ttext-segment=0x{PLACE}")).arg("-o").arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    let output = run(&[program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7), "{}", message(&output));
    assert_eq!(output.stdout, b"hello from here\n");
}
