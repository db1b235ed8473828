"""The frozen values that everything else talks about: of a job, of a cluster; and the declared failures."""
