"""Uses a driver's class and nothing else: python driver.py FOLDER"""
import sys
import uuid

from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.types import Volume

driver = FileDriver(configuration=Configuration({"file_store_path": sys.argv[1]}), host="here@files")
driver.do_setup(None)
driver.check_for_setup_error()
volume = Volume(id=str(uuid.uuid4()), size=1)
driver.create_volume(volume)
driver.extend_volume(volume, 2)
print(driver.local_path(volume), driver.get_volume_stats(refresh=True)["pools"][0]["provisioned_capacity_gb"])
driver.delete_volume(volume)
