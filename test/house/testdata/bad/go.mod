module github.com/berthd/berth

go 1.26

require (
	github.com/aws/aws-sdk-go-v2 v1.0.0 // indirect
	github.com/docker/docker v1.0.0
	github.com/miekg/dns v1.0.0
	github.com/spf13/cobra v1.0.0
)
