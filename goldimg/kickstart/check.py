"""Every kickstart of a site against the release that it is for: `goldimg kickstart validate`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from goldimg.config.loader import closest
from goldimg.config.models import Settings
from goldimg.config.settings import list_oses, load_settings
from goldimg.errors import ConfigError, Problem, UsageError
from goldimg.inputs import public_key_of
from goldimg.iso.debian.mirror import Mirrors
from goldimg.kickstart.answer import check_answer, is_preseed, render_answer
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.kickstart.target import make_target
from goldimg.kickstart.validate import validate_many
from goldimg.project import Site
from goldimg.run import Runner

WORKERS = 4
# What is checked is the form: an OS without a repo_server takes the mirror of the serving machine.
_SOME_MIRROR = Mirrors(main="http://mirror.invalid/debian", security=None)
_Job = tuple[str, str]  # text, syntax; of an answer file that is no kickstart, the OS's name


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One build or host for one OS. `text` is None where there is nothing to serve.

    `skipped` says why nothing was checked; where it does, there are no problems either.
    """

    build: str
    os: str
    problems: tuple[Problem, ...] = ()
    text: str | None = None
    skipped: str | None = None


def check_all(
    site: Site,
    runner: Runner,
    names: Collection[str] | None = None,
    oses: Collection[str] | None = None,
    *,
    environ: Mapping[str, str],
) -> list[Checked]:
    """Each build and host of the site (or of `names`), for its own OS or for all (or for `oses`).

    Root's password is locked in the texts, nothing is reported. Equal texts are checked once.
    Raises UsageError for a name that the site does not have, MissingTool without ksvalidator.
    """
    known, known_oses = builds(site.kickstart), list_oses(site)
    _are_known(names or (), known, "build")
    _are_known(oses or (), known_oses, "operating system")
    loaded = {name: _settings(site, name, environ) for name in oses or known_oses}
    found = [
        it
        for build in known
        if not names or build in names
        for it in _rendered(site, build, loaded)
    ]
    problems = _checked(found, loaded, runner)
    return [
        replace(it, problems=problems[key]) if (key := _job(it, loaded)) else it for it in found
    ]


def _are_known(names: Collection[str], known: Sequence[str], kind: str) -> None:
    for name in names:
        if name not in known:
            meant = closest(name, known)
            raise UsageError(
                f"unknown {kind} {name!r}" + (f" (did you mean '{meant}'?)" if meant else ""),
                hint=f"there are {', '.join(known) or 'none'}",
            )


def _settings(site: Site, name: str, environ: Mapping[str, str]) -> Settings | ConfigError:
    try:
        return load_settings(site, name, environ=environ)
    except ConfigError as error:
        return error


def _rendered(
    site: Site, build: str, loaded: Mapping[str, Settings | ConfigError]
) -> Iterator[Checked]:
    """The build for each OS that it may be installed with, not yet checked."""
    for name, settings in loaded.items():
        if isinstance(settings, ConfigError):
            yield Checked(build=build, os=name, problems=settings.problems)
            continue
        try:
            options = _options(site, build, settings)
            if options.os and options.os != name:
                # A machine of one OS: the others are of no interest, whichever came first.
                yield _of_its_own(site, build, options.os, loaded)
                return
            yield Checked(build=build, os=name, text=_render(site, settings, build, options))
            if options.os:
                return
        except ConfigError as error:
            yield Checked(build=build, os=name, problems=error.problems)


def _of_its_own(
    site: Site, build: str, name: str, loaded: Mapping[str, Settings | ConfigError]
) -> Checked:
    settings = loaded.get(name)
    if isinstance(settings, Settings):
        try:
            options = _options(site, build, settings)
            return Checked(build=build, os=name, text=_render(site, settings, build, options))
        except ConfigError as error:
            return Checked(build=build, os=name, problems=error.problems)
    if settings is not None:
        return Checked(build=build, os=name, problems=settings.problems)
    if name in list_oses(site):
        return Checked(build=build, os=name, skipped="is for an OS that was not asked for")
    message = f"the site has no operating system '{name}'"
    where = f"{site.kickstart.name}/builds/{build}.yml"
    problem = Problem(file=where, line=None, column=None, key="os", message=message)
    return Checked(build=build, os=name, problems=(problem,))


def _options(site: Site, build: str, settings: Settings) -> Options:
    defaults = settings.os.kickstart.options
    return load_options(site.kickstart, build, defaults, os_file=settings.os_shown)


def _render(site: Site, settings: Settings, build: str, options: Options) -> str:
    keys = (public_key_of(site),)
    target = make_target(settings, build, mirrors=_SOME_MIRROR, ssh_keys=keys)
    return render_answer(site.kickstart, settings, options, target)


# --- the texts ---------------------------------------------------------------------------------


def _job(it: Checked, loaded: Mapping[str, Settings | ConfigError]) -> _Job | None:
    settings = loaded.get(it.os)
    if it.text is None or not isinstance(settings, Settings):
        return None
    return it.text, it.os if is_preseed(settings) else settings.os.kickstart.syntax


def _checked(
    found: Sequence[Checked], loaded: Mapping[str, Settings | ConfigError], runner: Runner
) -> dict[_Job, tuple[Problem, ...]]:
    kickstarts: dict[str, list[str]] = {}
    others: dict[_Job, Settings] = {}
    for it in found:
        job, settings = _job(it, loaded), loaded.get(it.os)
        if job is None or not isinstance(settings, Settings):
            continue
        if is_preseed(settings):
            others[job] = settings
        else:
            kickstarts.setdefault(job[1], []).append(job[0])

    def of_syntax(syntax: str) -> list[tuple[_Job, tuple[Problem, ...]]]:
        answers = validate_many(kickstarts[syntax], syntax, runner)
        return [((text, syntax), tuple(problems)) for text, problems in answers]

    def of_other(job: _Job) -> list[tuple[_Job, tuple[Problem, ...]]]:
        return [(job, tuple(check_answer(job[0], others[job], runner)))]

    with ThreadPoolExecutor(WORKERS) as pool:
        parts = [*pool.map(of_syntax, kickstarts), *pool.map(of_other, others)]
    return {job: problems for part in parts for job, problems in part}
