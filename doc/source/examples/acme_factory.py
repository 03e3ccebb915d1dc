"""How the conformance suite makes the driver: over an empty folder, and again over the same one."""

from acme import AcmeDriver

from volmgr.drivers.options import Configuration
from volmgr.testing.conformance.factories import DriverFactory


class Acme(DriverFactory):
    name = "acme"

    def make(self, folder):
        driver = AcmeDriver(configuration=Configuration({"acme_folder": str(folder)}), host="host@acme")
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    def half_build(self, driver, resource, data):
        """Leave what a creation that died leaves."""
        with open(driver.building(resource), "wb") as file:
            file.write(data)
        return True
