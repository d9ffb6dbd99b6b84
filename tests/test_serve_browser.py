"""The pages in a real browser: what an operator sees without touching anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from goldimg.run import Runner
from goldimg.serve.arming import arm_host
from goldimg.serve.service import Service, open_service
from tests.serving import OS, Running, environ, gunicorn
from tests.support import needs

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
Browser = webdriver.Chrome
# Where to keep pictures of the pages, for people to look at.
PICTURES = os.environ.get("GOLDIMG_PICTURES")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needs("chromium", "chromedriver", "xorriso", "ksvalidator")
    with gunicorn(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def service(running: Running) -> Iterator[Service]:
    """The site's state, as `goldimg host` has it beside the server."""
    found = open_service(running.site, environ(), Runner())
    yield found
    found.store.close()


@pytest.fixture(scope="module")
def browser(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Driver("/usr/bin/chromedriver"))
    found.set_window_size(1280, 900)
    yield found
    found.quit()


@pytest.fixture
def logged_in(browser: Browser, running: Running) -> Browser:
    browser.delete_all_cookies()
    browser.get(running.url)
    browser.find_element(By.NAME, "token").send_keys(running.admin, Keys.ENTER)
    wait(lambda: browser.find_element(By.ID, "hosts-title"))
    complaints(browser)  # an earlier test's
    return browser


def wait(look: Callable[[], object], seconds: float = 20) -> None:
    """Until `look` finds something."""
    end = time.monotonic() + seconds
    while True:
        try:
            if look():
                return
        except Exception:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def picture(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))


def scheme(browser: Browser, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def row(browser: Browser, host: str) -> str:
    return browser.find_element(By.ID, f"host-{host}").text


def mark(browser: Browser) -> None:
    """A reload would lose this."""
    browser.execute_script("window.stayed = true")


def stayed(browser: Browser) -> bool:
    return bool(browser.execute_script("return window.stayed === true"))


def complaints(browser: Browser) -> list[str]:
    said = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [it["message"] for it in said if it["level"] == "SEVERE"]


def test_a_wrong_token_is_told_and_the_right_one_leads_to_the_page_asked_for(
    browser: Browser, running: Running
) -> None:
    browser.delete_all_cookies()
    browser.get(f"{running.url}/hosts/node01")
    assert browser.title == "goldimg: log in"
    picture(browser, "login")
    browser.find_element(By.NAME, "token").send_keys("wrong", Keys.ENTER)
    wait(lambda: "That is not the admin token" in browser.page_source)
    browser.find_element(By.NAME, "token").send_keys(running.admin, Keys.ENTER)
    wait(lambda: browser.title == "node01: known")
    assert browser.current_url == f"{running.url}/hosts/node01"


def test_a_host_is_followed_through_its_install_without_a_reload(
    logged_in: Browser, running: Running, service: Service
) -> None:
    browser = logged_in
    assert "known" in row(browser, "node01")
    mark(browser)
    arm_host(service, "node01")
    wait(lambda: "armed" in row(browser, "node01"))
    assert "expires in 23 h 59 min" in row(browser, "node01")
    record = service.store.host("node01")
    fetch = service.desk.token(record, "fetch")
    report = service.desk.token(record, "report")
    assert running.get(f"/ks/metal/node01?os={OS}&token={fetch}").status_code == 200
    wait(lambda: "kickstart fetched" in row(browser, "node01"))
    for stage in ("started", "partitioning", "packages"):
        answer = running.post(f"/report/metal/node01/{report}/{stage}", data=f"now {stage}\n")
        assert answer.status_code == 200
    wait(lambda: "installing\npackages" in row(browser, "node01"))
    assert "now packages" in row(browser, "node01")
    assert browser.find_element(By.ID, "spoken").get_attribute("textContent") == (
        "node01: installing"
    )
    assert browser.find_element(By.ID, "live").text == "live"
    assert stayed(browser)
    assert complaints(browser) == []
    picture(browser, "installing")


def test_a_broken_definition_is_shown_with_its_place(logged_in: Browser) -> None:
    problems = logged_in.find_element(By.ID, "problems").text
    assert "kickstart/builds/metal/broken.yml:3:1" in problems
    assert "ipadr: unknown key (did you mean ipaddr?)" in problems


def test_what_an_installer_says_is_text_and_nothing_else(
    logged_in: Browser, running: Running, service: Service
) -> None:
    browser = logged_in
    arm_host(service, "node02")
    report = service.desk.token(service.store.host("node02"), "report")
    browser.get(f"{running.url}/hosts/node02")
    mark(browser)
    for number in range(30):
        service.store.log("node02", [f"12:00:{number:02} INF packaging: package {number} of 30"])
    answer = running.post(f"/report/metal/node02/{report}/failed", data=f"{EVIL}\nlast words\n")
    assert answer.status_code == 200
    wait(lambda: "The install failed" in browser.page_source)
    assert EVIL in browser.find_element(By.CSS_SELECTOR, ".box.bad").text
    wait(lambda: EVIL in browser.find_element(By.CSS_SELECTOR, ".log").text)
    time.sleep(0.5)  # for an image's error handler, were it one
    assert browser.title == "node02: failed"
    assert stayed(browser)
    assert complaints(browser) == []
    picture(browser, "failed")


def test_a_host_is_armed_and_disarmed_by_its_buttons(
    logged_in: Browser, running: Running, service: Service
) -> None:
    browser = logged_in
    service.store.disarm("node01")
    browser.get(f"{running.url}/hosts/node01")
    browser.find_element(By.LINK_TEXT, "Install…").click()
    wait(lambda: browser.title == "Install node01?")
    words = browser.find_element(By.CSS_SELECTOR, ".box.warn").text
    assert "all of /dev/sda is wiped" in words
    assert "52:54:00:00:00:01" in words
    picture(browser, "install")
    browser.find_element(By.CSS_SELECTOR, "main button.danger").click()
    wait(lambda: browser.title == "node01: armed")
    assert service.store.host("node01").os == OS
    picture(browser, "armed")
    browser.find_element(By.LINK_TEXT, "Cancel…").click()
    wait(lambda: browser.title == "Cancel node01?")
    browser.find_element(By.CSS_SELECTOR, "main button.danger").click()
    wait(lambda: browser.title == "node01: known")
    assert service.store.host("node01").state == "known"


def test_the_page_says_when_the_server_no_longer_answers(
    logged_in: Browser, running: Running
) -> None:
    browser = logged_in
    browser.execute_cdp_cmd("Network.enable", {})
    nowhere = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", nowhere)
    wait(lambda: "no answer for" in browser.find_element(By.ID, "live").text)
    back = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", back)
    wait(lambda: browser.find_element(By.ID, "live").text == "live")


def test_it_can_be_read_on_a_phone_and_in_the_dark(
    logged_in: Browser, running: Running, service: Service
) -> None:
    browser = logged_in
    name = f"{OS}-1.0.0/aws"
    for state, text in (("queued", ""), ("installing", "packages"), ("provisioning", "aws.yml")):
        service.store.build(name, state, text)
    service.store.build(f"{OS}-1.0.0/azure", "failed", "azure: no SSH after 10m")
    browser.set_window_size(1280, 900)
    browser.get(running.url)
    backgrounds = set()
    for mode in ("light", "dark"):
        scheme(browser, mode)
        picture(browser, f"status-{mode}")
        backgrounds.add(
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        )
    assert len(backgrounds) == 2
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    for page in ("/", "/hosts/node01", "/hosts/node02", f"/builds/{name}"):
        browser.get(running.url + page)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390, f"{page} must be pushed sideways to be read"
        picture(browser, "phone" + page.replace("/", "-"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    scheme(browser, "light")
