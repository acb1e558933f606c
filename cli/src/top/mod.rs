//! `pagefault top`: a live view of this machine's managed process trees.
//!
//! | module | what it does |
//! |---|---|
//! | [`model`] | reads the counters, computes rates |
//! | [`view`] | draws a frame |
//! | [`text`] | one snapshot as a table, if the output is not a terminal |
//!
//! It reads each tree's shared control memory, which costs the programs nothing.

mod model;
mod text;
mod view;

use crate::size::Size;
use crate::{complain, ctl, say, status, trees};
use model::{Observer, Order, View};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// How often the counters are read.
const LOOK: Duration = Duration::from_millis(1000);
/// How often a frame is drawn.
const FRAME: Duration = Duration::from_millis(125);
/// The interval between a snapshot's two readings.
const INTERVAL: Duration = Duration::from_millis(500);

const KEYS: &str = "\
Keys: up, down or j, k select a tree; s sorts by the next column; p pauses; l changes the limit of the
selected tree; q quits.

If standard output is not a terminal, top prints one snapshot as a table, or as JSON with --json.";

/// Show running managed programs: faults, resident memory, swap.
#[derive(clap::Args)]
#[command(after_long_help = KEYS, after_help = KEYS)]
pub struct Arguments {
    /// Show only the tree of this process
    #[arg(value_name = "PID", value_parser = trees::pid)]
    pid: Option<u32>,
    /// Print one snapshot as JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Tree(#[from] trees::Error),
    #[error("cannot draw on the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let done = if arguments.json || !io::stdout().is_terminal() {
        snapshot(arguments).map_err(Error::from)
    } else {
        watch(arguments.pid)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("{error}");
            ExitCode::from(status::FAILED)
        }
    }
}

/// Prints one snapshot. Rates need two readings.
fn snapshot(arguments: &Arguments) -> Result<(), trees::Error> {
    let mut observer = Observer::default();
    observer.look(arguments.pid)?;
    std::thread::sleep(INTERVAL);
    let mut views = observer.look(arguments.pid)?;
    Order::default().sort(&mut views);
    if arguments.json {
        let trees: Vec<_> = views.iter().map(View::json).collect();
        say::print(&format!("{:#}\n", serde_json::json!({ "trees": trees })));
    } else {
        say::print(&text::table(&views));
    }
    Ok(())
}

/// Draws until the user quits.
fn watch(only: Option<u32>) -> Result<(), Error> {
    let mut screen = Screen::new(only)?;
    let mut terminal = ratatui::try_init()?;
    let ended = screen.run(&mut terminal);
    ratatui::try_restore()?;
    ended
}

/// The state of the view.
pub struct Screen {
    only: Option<u32>,
    observer: Observer,
    views: Vec<View>,
    order: Order,
    /// The selected tree, by its id.
    chosen: Option<u64>,
    paused: bool,
    /// The limit being typed.
    typing: Option<String>,
    /// The result of the last limit change.
    message: Option<String>,
    /// Counts frames, to animate the figure.
    frame: usize,
    told: Receiver<String>,
    tell: Sender<String>,
}

impl Screen {
    fn new(only: Option<u32>) -> Result<Self, trees::Error> {
        let mut observer = Observer::default();
        let views = observer.look(only)?;
        Ok(Self { only, observer, ..Self::of(views) })
    }

    /// A screen that shows these trees.
    fn of(views: Vec<View>) -> Self {
        let (tell, told) = mpsc::channel();
        Self {
            only: None,
            observer: Observer::default(),
            views,
            order: Order::default(),
            chosen: None,
            paused: false,
            typing: None,
            message: None,
            frame: 0,
            told,
            tell,
        }
    }

    fn run(&mut self, terminal: &mut DefaultTerminal) -> Result<(), Error> {
        let mut due = Instant::now() + LOOK / 4;
        loop {
            terminal.draw(|frame| view::draw(self, frame))?;
            self.frame += usize::from(!self.paused);
            if event::poll(FRAME)?
                && let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                let ends = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
                if ends || self.press(key.code) == Go::End {
                    return Ok(());
                }
            }
            if let Ok(message) = self.told.try_recv() {
                self.message = Some(message);
            }
            if !self.paused && Instant::now() >= due {
                self.look();
                due = Instant::now() + LOOK;
            }
        }
    }

    fn look(&mut self) {
        // The requested tree may end while it is watched.
        self.views = self.observer.look(self.only).unwrap_or_default();
        self.order.sort(&mut self.views);
    }

    /// The index of the selected tree.
    fn place(&self) -> Option<usize> {
        let chosen = self.views.iter().position(|view| Some(view.id) == self.chosen);
        chosen.or_else(|| (!self.views.is_empty()).then_some(0))
    }

    fn press(&mut self, key: KeyCode) -> Go {
        if self.typing.is_some() {
            self.type_limit(key);
            return Go::On;
        }
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Go::End,
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.order.sort(&mut self.views);
            }
            KeyCode::Char('p') | KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('l') if self.place().is_some() => {
                self.message = None;
                self.typing = Some(String::new());
            }
            _ => {}
        }
        Go::On
    }

    fn choose(&mut self, step: isize) {
        let Some(place) = self.place() else { return };
        let last = self.views.len() - 1;
        let place = place.saturating_add_signed(step).min(last);
        self.chosen = Some(self.views[place].id);
    }

    fn type_limit(&mut self, key: KeyCode) {
        let Some(text) = &mut self.typing else { return };
        match key {
            KeyCode::Esc => self.typing = None,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(letter) => text.push(letter),
            KeyCode::Enter => {
                let text = std::mem::take(text);
                self.typing = None;
                self.change_limit(&text);
            }
            _ => {}
        }
    }

    /// Changes the limit of the selected tree. This may take a while.
    fn change_limit(&mut self, text: &str) {
        let Some(view) = self.place().map(|place| &self.views[place]) else { return };
        let size: Size = match text.trim().parse() {
            Ok(size) => size,
            Err(error) => {
                self.message = Some(format!("{text}: {error}"));
                return;
            }
        };
        let (pid, tell) = (view.pid, self.tell.clone());
        self.message = Some(format!("{pid}: evicting down to {size}…"));
        std::thread::spawn(move || {
            let changed = trees::of(pid).map_err(ctl::Error::from);
            let message = match changed.and_then(|tree| ctl::set(&tree, size)) {
                Ok(()) => format!("{pid}: the limit is {size} now"),
                Err(error) => error.to_string(),
            };
            // The terminal may be gone.
            let _ = tell.send(message);
        });
    }
}

/// Whether the user quits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    End,
}
