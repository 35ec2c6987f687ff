"""Train one run as composed from conf/: ``python train.py --help``."""

from pathlib import Path

from winnow.run.train import train

if __name__ == "__main__":
    train(Path(__file__).parent / "conf")
