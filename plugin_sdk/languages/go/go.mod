module keelstone

go 1.24
