//! One campaign: floor, trials of the layouts, then each kind of load where its trial was best.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evershard::Client;
use indicatif::ProgressBar;

use super::cluster::Cluster;
use super::figures::{ClosedLoop, Figures, OpenLoop, Trial, Window, name};
use super::layout::Layout;
use super::{LatencyOptions, WINDOW_MAX, load};
use crate::floor::plan::{Idle, Placement};
use crate::floor::{self, FloorOptions, Variant};
use crate::report::Series;

pub(super) struct Campaign<'a> {
    options: &'a LatencyOptions,
    layouts: Vec<Layout>,
    directory: PathBuf,
    length: Duration,
    progress: ProgressBar,
    figures: Figures,
    series: Vec<(Variant, Series)>,
}

impl<'a> Campaign<'a> {
    pub(super) fn new(options: &'a LatencyOptions, layouts: Vec<Layout>, progress: ProgressBar) -> Result<Self> {
        let share = if options.quick { QUICK_SHARE } else { 1.0 };
        let length = Duration::try_from_secs_f64(options.seconds * share).context("--seconds is out of range")?;
        let directory = match &options.dir {
            Some(directory) => directory.clone(),
            // Beside the executable is the build's disk; the directory for temporary files may be memory.
            None => std::env::current_exe()?.parent().context("an executable without a directory")?.to_owned(),
        };
        let (figures, series) = (Figures::default(), Vec::new());
        Ok(Self { options, layouts, directory, length, progress, figures, series })
    }

    /// The steps the progress counts.
    pub(super) fn steps(&self, variants: usize) -> u64 {
        let floor = usize::from(!self.options.without_floor);
        let steps = floor + self.layouts.len() + self.options.sizes.len() + 1 + self.options.rates.len();
        (steps * variants) as u64
    }

    pub(super) fn measure(&mut self, variant: Variant) -> Result<()> {
        if !self.options.without_floor {
            self.floor(variant)?;
        }
        for layout in self.layouts.clone() {
            let trial = self.trial(variant, layout);
            self.figures.trials.push(trial);
        }
        self.closed_loops(variant)?;
        self.window(variant)?;
        for &rate in &self.options.rates {
            self.open_loop(variant, rate)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> (Figures, Vec<(Variant, Series)>) {
        self.figures.summarize();
        (self.figures, self.series)
    }

    fn floor(&mut self, variant: Variant) -> Result<()> {
        let quick = self.options.quick;
        let options = FloorOptions {
            sizes: self.options.sizes.clone(),
            duration: if quick { Duration::from_millis(400) } else { Duration::from_millis(900) },
            rounds: if quick { 2 } else { 3 },
            dir: self.directory.clone(),
            variants: vec![variant],
            finalists: if quick { 2 } else { 3 },
            placements: if quick { vec![Placement::OneCore, Placement::FollowersApart] } else { Vec::new() },
            idles: FLOOR_IDLES.to_vec(),
            clients: Vec::new(),
            program: None,
        };
        let progress = &self.progress;
        let report = floor::measure(&options, |done, total, title| {
            progress.set_message(format!("floor {done}/{total}: {title}"));
        })?;
        progress.inc(1);
        ensure!(!report.best.is_empty(), "the floor did not run: {}", report.failures.join("; "));
        self.figures.add_floor(&report);
        for entry in &report.best {
            let title = format!("floor {} {} B", name(variant), entry.size);
            self.series.push((variant, Series::of(title, &entry.round_trips)));
        }
        Ok(())
    }

    /// All three kinds of load on one cluster, shortly. A layout that fails is only not taken.
    fn trial(&mut self, variant: Variant, layout: Layout) -> Trial {
        self.progress.set_message(format!("{}: trying {}", name(variant), layout.title()));
        let mut trial = Trial {
            durability: variant,
            layout: layout.clone(),
            closed_p50: f64::INFINITY,
            window_rate: 0.0,
            open_p99: f64::INFINITY,
            failure: None,
        };
        let length = TRIAL_LENGTH.min(self.length);
        let size = self.small_size();
        let rate = self.options.rates.iter().copied().fold(0.0, f64::max);
        let window_len = self.options.window;
        let outcome = Cluster::start(&self.directory, variant, &layout).and_then(|mut cluster| {
            let closed = on_client(&mut cluster, &layout, 1, |client| load::closed_loop(client, "", size, length))?;
            trial.closed_p50 = closed.percentiles().p50;
            let window =
                on_client(&mut cluster, &layout, window_len, |client| load::window(client, size, window_len, length))?;
            trial.window_rate = window.rate();
            if rate > 0.0 {
                let open = |client: &mut Client| load::open_loop(client, "", size, rate, length);
                trial.open_p99 = on_client(&mut cluster, &layout, WINDOW_MAX, open)?.percentiles().p99;
            }
            Ok(())
        });
        trial.failure = outcome.err().map(|error| format!("{error:#}"));
        self.progress.inc(1);
        trial
    }

    fn closed_loops(&mut self, variant: Variant) -> Result<()> {
        let layout = self.best(variant, |trial| trial.closed_p50)?;
        let mut cluster = Cluster::start(&self.directory, variant, &layout)?;
        for &size in &self.options.sizes {
            let title = format!("{} {size} B", name(variant));
            self.progress.set_message(format!("closed loop, {title}"));
            let before = cluster.processor_times();
            let length = self.length;
            let series = on_client(&mut cluster, &layout, 1, |client| load::closed_loop(client, &title, size, length))?;
            // The warm-up's requests are not counted and take a fifth more.
            let requests = series.total.len() as f64 * load::WITH_WARM_UP;
            self.figures.closed_loop.push(ClosedLoop {
                durability: variant,
                size,
                layout: layout.clone(),
                ratio_to_floor_p50: self.figures.floor_p50(variant, size).map(|floor| series.percentiles().p50 / floor),
                node_processor_time: per_request(&before, &cluster.processor_times(), requests),
                summary: series.summary(),
            });
            self.series.push((variant, series));
            self.progress.inc(1);
        }
        Ok(())
    }

    fn window(&mut self, variant: Variant) -> Result<()> {
        let layout = self.best(variant, |trial| -trial.window_rate)?;
        let (size, window_len, length) = (self.small_size(), self.options.window, self.length);
        self.progress.set_message(format!("{window_len} in flight, {} {size} B", name(variant)));
        let mut cluster = Cluster::start(&self.directory, variant, &layout)?;
        let before = cluster.processor_times();
        let throughput =
            on_client(&mut cluster, &layout, window_len, |client| load::window(client, size, window_len, length))?;
        let requests = throughput.replies as f64 * load::WITH_WARM_UP;
        self.figures.window.push(Window {
            durability: variant,
            window_len,
            size,
            rate: throughput.rate(),
            node_processor_time: per_request(&before, &cluster.processor_times(), requests),
            layout,
        });
        self.progress.inc(1);
        Ok(())
    }

    fn open_loop(&mut self, variant: Variant, rate: f64) -> Result<()> {
        let layout = self.best(variant, |trial| trial.open_p99)?;
        let (size, length) = (self.small_size(), self.length);
        let title = format!("{} {size} B {rate}/s", name(variant));
        self.progress.set_message(format!("open loop, {title}"));
        let mut cluster = Cluster::start(&self.directory, variant, &layout)?;
        let series =
            on_client(&mut cluster, &layout, WINDOW_MAX, |client| load::open_loop(client, &title, size, rate, length))?;
        let summary = series.summary();
        self.figures.open_loop.push(OpenLoop { durability: variant, rate, size, layout, summary });
        self.series.push((variant, series));
        self.progress.inc(1);
        Ok(())
    }

    /// The layout whose trial has the least cost.
    fn best(&self, variant: Variant, cost: impl Fn(&Trial) -> f64) -> Result<Layout> {
        let trials = self.figures.trials.iter().filter(|trial| trial.durability == variant);
        let best =
            trials.min_by(|one, other| cost(one).total_cmp(&cost(other))).context("a campaign tries a layout")?;
        // With every cost infinite the first is as good as any: the real run says what is wrong.
        Ok(best.layout.clone())
    }

    fn small_size(&self) -> usize {
        self.options.sizes.iter().copied().min().unwrap_or(32)
    }
}

/// Runs a load on a thread that is placed as the layout says; this thread stays unpinned, for its children inherit.
fn on_client<T: Send>(
    cluster: &mut Cluster,
    layout: &Layout,
    window_len: usize,
    run: impl FnOnce(&mut Client) -> Result<T> + Send,
) -> Result<T> {
    let mut client = cluster.client(window_len, layout.client_spins())?;
    let core = core_affinity::CoreId { id: layout.client_core() };
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            ensure!(core_affinity::set_for_current(core), "cannot pin to core {}", core.id);
            nix::sys::prctl::set_timerslack(1).context("cannot set the timer slack")?;
            run(&mut client)
        });
        thread.join().expect("a load does not panic")
    });
    cluster.check()?;
    let outcome = outcome?;
    client.close()?;
    Ok(outcome)
}

/// Microseconds a request.
fn per_request(before: &[Duration], after: &[Duration], requests: f64) -> Vec<f64> {
    let spent = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before));
    spent.map(|spent| spent.as_secs_f64() * 1e6 / requests).collect()
}

/// What can win; the other idle modes only show why they do not.
const FLOOR_IDLES: [Idle; 7] =
    [Idle::Block, Idle::BlockSkip, Idle::BlockCoop, Idle::BlockBatch, Idle::BlockFifo, Idle::SpinAlone, Idle::Backoff];
const TRIAL_LENGTH: Duration = Duration::from_millis(500);
const QUICK_SHARE: f64 = 0.25;
