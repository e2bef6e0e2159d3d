"""`make audit`: asks whether a pinned package has a known vulnerability, and says so when nobody could be asked.

pip-audit has no exit code of its own for an unreachable service, and passes over packages that a mirror does not know.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("requirements.txt", "requirements-dev.txt")
NO_ANSWER = ("ConnectionError", "Failed to establish", "Max retries exceeded", "ServiceError", "timed out")


def main() -> int:
    files = [argument for name in FILES for argument in ("-r", str(ROOT / name))]
    options = ["--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json"]
    answer = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, *files], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    try:
        packages = json.loads(answer.stdout)["dependencies"]
    except ValueError:
        print(answer.stderr.strip(), file=sys.stderr)
        if any(sign in answer.stderr for sign in NO_ANSWER):
            print("audit: the vulnerability service does not answer, nothing was checked")
            return 0
        return 1
    unknown = [package for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "none"
            print(f"{package['name']} {package['version']}: {found['id']}, fixed in: {fixed}")
    print(f"audit: {len(packages) - len(unknown)} packages checked, {len(vulnerable)} vulnerable", end="")
    print(f"; {len(unknown)} could not be checked: the service does not know them" if unknown else "")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
