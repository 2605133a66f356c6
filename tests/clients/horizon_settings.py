"""Horizon as it is shipped, with the Keystone of the tests (OPENSTACK_KEYSTONE_URL of the environment), without what
a browser alone needs.
"""

import os
import tempfile

from openstack_dashboard.settings import *  # noqa: F403
from openstack_dashboard.settings import ANGULAR_FEATURES

DEBUG = False
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "of the tests"
OPENSTACK_KEYSTONE_URL = os.environ["OPENSTACK_KEYSTONE_URL"]
OPENSTACK_KEYSTONE_MULTIDOMAIN_SUPPORT = False
OPENSTACK_KEYSTONE_DEFAULT_DOMAIN = "Default"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
COMPRESS_ENABLED = False
COMPRESS_PRECOMPILERS = ()
FILE_UPLOAD_TEMP_DIR = tempfile.gettempdir()
IMAGES_ALLOW_LOCATION = True
ANGULAR_FEATURES["images_panel"] = False  # its pages are forms: the newer ones are a program in the browser
