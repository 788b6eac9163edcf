import not_installed_anywhere


def go(arguments):
    not_installed_anywhere.arrive()
