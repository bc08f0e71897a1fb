"""Tool calls: the forms that models write them in, read as they stream and turned into grammars."""
