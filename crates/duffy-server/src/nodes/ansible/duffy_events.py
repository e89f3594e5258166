# Tells Duffy what happens in a playbook: the values that set_fact gives duffy_out, and why tasks fail. It writes one JSON
# object per line to the file that DUFFY_ANSIBLE_EVENTS names, without a buffer. ansible-playbook loads it next to the
# site's own callbacks. It runs on ansible 2.9 with Python 2.7 and on all later versions.
from __future__ import absolute_import, division, print_function, unicode_literals

import json
import os

from ansible.plugins.callback import CallbackBase

__metaclass__ = type

DOCUMENTATION = """
    name: duffy_events
    type: notification
    short_description: Tells Duffy the results of playbooks
    description:
      - Writes what Duffy needs to know of a playbook's run to a file.
"""

SET_FACT = ("set_fact", "ansible.builtin.set_fact", "ansible.legacy.set_fact")


def to_plain(value):
    """Converts what JSON has no form for, in the way of ansible's own JSON callbacks."""
    if getattr(value, "yaml_tag", None) == "!vault" or hasattr(value, "_ciphertext"):
        ciphertext = value._ciphertext
        return {"__ansible_vault": ciphertext.decode("utf-8") if isinstance(ciphertext, bytes) else ciphertext}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return dict((key, value[key]) for key in value.keys())
    if hasattr(value, "__iter__"):
        return list(value)
    return "%s" % (value,)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "duffy_events"
    CALLBACK_NEEDS_ENABLED = False
    CALLBACK_NEEDS_WHITELIST = False

    def write(self, event, result, **more):
        try:
            # Results have no public names for these before ansible-core 2.20, and later versions may drop the private ones.
            host = getattr(result, "host", None) or result._host
            task = getattr(result, "task", None) or result._task
            more.update(event=event, host=host.get_name(), task=task.get_name())
        except Exception as exc:
            more.update(event=event, host="?", task="?", trouble=repr(exc))
        try:
            line = self.encode(more)
        except Exception as exc:
            line = self.encode({"event": "trouble", "msg": "%s: %r" % (more["task"], exc)})
        try:
            with open(os.environ["DUFFY_ANSIBLE_EVENTS"], "ab") as events:
                events.write(line + b"\n")
        except Exception as exc:
            self._display.warning("cannot write an event for Duffy: %s" % exc)

    @staticmethod
    def encode(event):
        """Returns one line of strict JSON in UTF-8. Bytes of a program's output that are not UTF-8 become question marks."""
        text = json.dumps(event, default=to_plain, allow_nan=False, ensure_ascii=False)
        return text if isinstance(text, bytes) else text.encode("utf-8", "replace")

    @staticmethod
    def parts(result):
        task = getattr(result, "task", None) or result._task
        outcome = getattr(result, "result", None) or result._result
        return task, outcome

    def v2_runner_on_ok(self, result, *args, **kwargs):
        task, outcome = self.parts(result)
        if task.action not in SET_FACT:
            return
        if outcome.get("_ansible_no_log") or "censored" in outcome:
            self.write("hidden", result)
            return
        # A loop has its facts in the results of its items; the last one is the variable's value afterwards.
        for item in [outcome] + list(outcome.get("results") or []):
            if not isinstance(item, dict) or item.get("skipped"):
                continue
            if item.get("_ansible_no_log") or "censored" in item:
                self.write("hidden", result)
                continue
            facts = item.get("ansible_facts") or {}
            if "duffy_out" in facts:
                self.write("result", result, value=facts["duffy_out"])

    def v2_runner_on_failed(self, result, ignore_errors=False, *args, **kwargs):
        self.write("failed", result, msg=self.reason(result), ignored=bool(ignore_errors))

    def v2_runner_on_unreachable(self, result, *args, **kwargs):
        task = self.parts(result)[0]
        ignored = bool(getattr(task, "ignore_unreachable", False))
        self.write("unreachable", result, msg=self.reason(result), ignored=ignored)

    def reason(self, result):
        """Returns why a task failed; for a loop, why its items failed."""
        try:
            outcome = self.parts(result)[1]
            if "censored" in outcome:
                return "(hidden by no_log)"
            items = [item for item in outcome.get("results") or [] if isinstance(item, dict)]
            bad = [item for item in items if item.get("failed") or item.get("unreachable")]
            texts = []
            for item in bad or [outcome]:
                if "censored" in item:
                    text = "(hidden by no_log)"
                else:
                    text = "%s" % (item.get("msg") or item.get("reason") or "",)
                    # A command's last line says more than "non-zero return code".
                    said = item.get("stderr") or item.get("module_stderr") or item.get("stdout") or ""
                    last = [line for line in ("%s" % (said,)).splitlines() if line.strip()][-1:]
                    text = ": ".join([text] * bool(text) + last)
                texts.append(text or "no reason given")
            return "; ".join(texts)[:2000]
        except Exception as exc:
            return "no reason known: %r" % (exc,)
