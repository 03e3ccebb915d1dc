# SPDX-License-Identifier: Apache-2.0
"""The console scripts. Each chooses its kind of threads before it imports anything else."""
